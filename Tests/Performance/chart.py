#!/usr/bin/env python3
"""Draws what was measured: `chart.py FILE.json > FILE.svg`. Fanouts by members, on logarithmic axes."""

import json
import math
import sys

PANEL_WIDTH, PANEL_HEIGHT, LEGEND, MARGIN = 330, 260, 190, 50
COLOURS = ["#d62728", "#ff9896", "#7f7f7f", "#c7c7c7", "#1f77b4", "#2ca02c", "#98df8a", "#9467bd", "#8c564b"]


def scale(low, high, start, end):
    """Maps what lies between two figures logarithmically onto a line."""
    span = math.log(high / low) or 1
    return lambda value: start + (end - start) * math.log(value / low) / span


def text(x, y, words, anchor="middle", size=11):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}">{words}</text>'


def panel(title, cells, left, colours):
    """One chart: a line for each system, a point for each number of members."""
    rates = [system["rate"] for cell in cells for system in cell["systems"].values() if system.get("rate")]
    counts = sorted(cell["count"] for cell in cells)
    low, high = 10 ** math.floor(math.log10(min(rates))), 10 ** math.ceil(math.log10(max(rates)))
    x = scale(counts[0], max(counts[-1], counts[0] * 2), left + MARGIN, left + PANEL_WIDTH - 10)
    y = scale(low, max(high, low * 10), PANEL_HEIGHT - 30, 40)
    parts = [text(left + MARGIN + (PANEL_WIDTH - MARGIN) / 2, 22, title, size=13)]
    power = low
    while power <= high:
        parts.append(f'<line x1="{left + MARGIN}" x2="{left + PANEL_WIDTH - 10}" y1="{y(power):.1f}" y2="{y(power):.1f}" '
                     'stroke="#ddd"/>')
        parts.append(text(left + MARGIN - 6, y(power) + 4, f"{power:g}", "end"))
        power *= 10
    for count in counts:
        parts.append(text(x(count), PANEL_HEIGHT - 12, f"×{count}"))
    for name, colour in colours.items():
        points = [(x(cell["count"]), y(cell["systems"][name]["rate"])) for cell in sorted(cells, key=lambda c: c["count"])
                  if cell["systems"].get(name, {}).get("rate")]
        if not points:
            continue
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        width = 3 if name.startswith("castnet") else 1.5
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{width}" fill="{colour}"/>' for px, py in points]
    return parts


def chart(done):
    cells = [cell for cell in done["cells"] if cell["what"] == "fanout"]
    sizes = sorted({cell["size"] for cell in cells}, reverse=True)
    names = list(dict.fromkeys(name for cell in cells for name in cell["systems"]))
    colours = dict(zip(names, COLOURS))
    parts = []
    for number, size in enumerate(sizes):
        of_size = [cell for cell in cells if cell["size"] == size]
        label = f"{size >> 10} KiB" if size >= 1024 else f"{size} B"
        parts += panel(f"fanout of {label}, MB/s to every member", of_size, number * PANEL_WIDTH, colours)
    left = len(sizes) * PANEL_WIDTH + 20
    for number, (name, colour) in enumerate(colours.items()):
        parts.append(f'<rect x="{left}" y="{44 + number * 20}" width="14" height="4" fill="{colour}"/>')
        parts.append(text(left + 20, 50 + number * 20, name, "start"))
    width = len(sizes) * PANEL_WIDTH + LEGEND
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {PANEL_HEIGHT}" font-family="sans-serif">',
        f'<rect width="{width}" height="{PANEL_HEIGHT}" fill="white"/>', *parts, "</svg>"])


if __name__ == "__main__":
    with open(sys.argv[1]) as source:
        print(chart(json.load(source)))

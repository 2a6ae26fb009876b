#!/usr/bin/env python3
"""Medians and ratios of what was measured; `report.py FILE.json` prints the table."""

import json
import statistics
import sys


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def figure(runs, name):
    """The median of a figure over the repetitions that had a result."""
    return median([run[name] for run in runs if run and run.get(name) is not None])


def ratio(ours, theirs, name):
    """The median of the repetitions' own ratios: what drifts drifts for both."""
    pairs = [(one[name], other[name]) for one, other in zip(ours, theirs) if one and other and other.get(name)]
    return median([one / other for one, other in pairs])


def summary(cell, figures):
    """What the JSON keeps of a cell."""
    systems = {}
    for name, runs in figures.items():
        kept = {key: figure(runs, key) for key in ("rate", "p50", "p99", "cpu_s_per_gb")}
        kept = {key: value for key, value in kept.items() if value is not None}
        kept["runs"] = [run["rate"] if run else None for run in runs]
        lost = [run["lost"] for run in runs if run and "lost" in run]
        if lost:
            kept["lost"] = sum(lost)
        systems[name] = kept
    targets = []
    for target in cell.targets:
        value = ratio(figures[target.ours], figures[target.other], target.figure)
        is_met = value is not None and (value <= target.factor if target.at_most else value >= target.factor)
        # A rate with losses is none.
        is_met = is_met and not systems[target.ours].get("lost") and None not in systems[target.ours]["runs"]
        targets.append({"ours": target.ours, "text": str(target), "other": target.other, "figure": target.figure,
                        "factor": target.factor, "ratio": value, "met": is_met})
    return {"name": cell.name, "what": cell.what, "size": cell.size, "count": cell.count, "unit": cell.unit,
            "systems": systems, "targets": targets}


def amount(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def rows(done, what):
    """A line for each cell of a kind, a column for each system."""
    chosen = [cell for cell in done["cells"] if cell["what"] == what]
    if not chosen:
        return []
    names = list(dict.fromkeys(name for cell in chosen for name in cell["systems"]))
    lines = ["| " + " | ".join([f"{what} ({chosen[0]['unit']})", *names]) + " |", "|---" * (len(names) + 1) + "|"]
    for cell in chosen:
        values = []
        for name in names:
            system = cell["systems"].get(name)
            text = amount(system.get("rate")) if system else ""
            if system and "p50" in system and cell["count"] == 1:
                text += f" ({system['p50']:.0f}/{system['p99']:.0f} µs)"
            if system and system.get("lost"):
                text += f", {system['lost']} lost"
            values.append(text)
        lines.append("| " + " | ".join([cell["name"], *values]) + " |")
    return lines + [""]


def table(done):
    """Markdown: the figures, then the targets."""
    lines = [f"{done['date']}, {done['processor']}, Linux {done['kernel']}: medians of {done['repetitions']} runs of "
             f"{done['seconds']} s, all systems in turns; in brackets p50/p99.", ""]
    for what in ("fanout", "call"):
        lines += rows(done, what)
    lines += ["| cell | target | reached | |", "|---|---|---|---|"]
    for cell in done["cells"]:
        for target in cell["targets"]:
            reached = "–" if target["ratio"] is None else f"{target['ratio']:.2f} ×"
            lines.append(f"| {cell['name']} | {target['ours']}: {target['text']} | {reached} | "
                         f"{'met' if target['met'] else '**missed**'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with open(sys.argv[1]) as source:
        print(table(json.load(source)))

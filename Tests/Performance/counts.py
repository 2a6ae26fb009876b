#!/usr/bin/env python3
"""What a message costs, counted: instructions and allocations, which are the same on a busy machine."""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile

from options import Options

HERE = os.path.dirname(os.path.abspath(__file__))
LIMITS = os.path.join(HERE, "counts.json")
PROGRAM = os.path.join(os.path.dirname(os.environ["CASTNET"]), "Workloads")
# How far above the noted figure a count may be: threads and the kernel's timing vary what happens over sockets.
ALLOWED = {"process": 1.03, "sockets": 1.15}
# Two lengths of each workload: their difference leaves out what the start costs.
LENGTHS = {"call-64": (500, 2000), "call-64k": (100, 400), "cast-ephemeral": (512, 2560),
           "fanout-64": (12800, 38400), "fanout-64k": (100, 400)}
# What lies where in a dictionary is the same in every run, and so is how memory is copied, whatever the processor
# would be best at.
EVERYWHERE = {"SWIFT_DETERMINISTIC_HASHING": "1",
              "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM"}
ALLOCATORS = {"malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"}


def allocations(path):
    """Calls of the allocator in what callgrind wrote, where a name is spelled out once and numbered then."""
    names, callee, total = {}, "", 0
    with open(path, errors="replace") as file:
        for line in file:
            if line.startswith(("fn=", "cfn=")):
                number, name = re.match(r"c?fn=(\(\d+\))(?: (.*))?", line).groups()
                if name:
                    names[number] = name.split("'")[0].split("@")[0]
                if line.startswith("cfn="):
                    callee = names[number]
            elif line.startswith("calls=") and callee in ALLOCATORS:
                total += int(line[6:].split()[0])
    return total


def run(program, work, workload, place, messages):
    """Instructions and allocations of one run."""
    path = os.path.join(work, "callgrind.out")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={path}", program, workload, place,
               "--messages", str(messages)]
    environment = dict(os.environ, **EVERYWHERE)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, env=environment)
    said = done.stdout.decode(errors="replace")
    collected = re.search(r"Collected : (\d+)", said)
    if done.returncode != 0 or not collected:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{said[-2000:]}")
    return int(collected[1]), allocations(path)


def cost(program, work, workload, place):
    """What one message costs."""
    short, long = LENGTHS[workload]
    few, many = (run(program, work, workload, place, messages) for messages in (short, long))
    instructions, calls = ((more - less) / (long - short) for less, more in zip(few, many))
    return {"instructions": round(instructions), "allocations": round(calls, 2)}


def is_met(key, value, noted, place):
    # Less than one allocation in a hundred messages is the runtime's.
    return noted is not None and value <= noted * ALLOWED[place] + (0.01 if key == "allocations" else 0)


def measured(program, work, workload, place, noted):
    """The cost; where it is above the noted one over sockets, the least of two: a busy moment adds to one run."""
    once = cost(program, work, workload, place)
    if place == "process" or all(is_met(key, value, noted.get(key), place) for key, value in once.items()):
        return once
    again = cost(program, work, workload, place)
    return {key: min(value, again[key]) for key, value in once.items()}


def compiler():
    """What the counts hold for: another compiler makes other instructions, and so does another processor's kind."""
    said = subprocess.run(["swift", "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    found = re.search(r"Swift version (\S+)", said)
    return f"{found[1] if found else 'unknown'} {platform.machine()}"


def check(limits, figures):
    """Prints a line for each figure; returns how many are above their limits."""
    failed = 0
    for name, cost in figures.items():
        place = name.split()[1]
        for key, value in cost.items():
            noted = limits.get(name, {}).get(key)
            within = is_met(key, value, noted, place)
            failed += not within
            percent = "" if not noted else f", {100 * (value / noted - 1):+.1f} %"
            print(f"{'pass' if within else 'FAIL'} {name}: {value:,} {key} a message, noted {noted}{percent}")
    return failed


def arguments():
    parser = Options(prog="counts.sh", description=__doc__)
    parser.add_argument("--write", action="store_true", help="note the figures as the new limits")
    parser.add_argument("--only", default="", help="only workloads whose name and place have this text in them")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        with open(LIMITS) as file:
            noted = json.load(file)
    except FileNotFoundError:
        noted = {"swift": compiler(), "counts": {}}
    if noted["swift"] != compiler() and not options.write:
        print(f"skip counts: noted with Swift {noted['swift']}, this is {compiler()}")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    figures = {}
    with tempfile.TemporaryDirectory(prefix="castnet-counts-") as work:
        # Valgrind cannot read all of what the compiler writes for debuggers.
        program = os.path.join(work, "Workloads")
        subprocess.run(["strip", "--strip-debug", "-o", program, PROGRAM], check=True)
        for workload in LENGTHS:
            for place in ALLOWED:
                name = f"{workload} {place}"
                if options.only in name:
                    limits = noted["counts"].get(name, {})
                    figures[name] = measured(program, work, workload, place, limits)
    print(json.dumps({"counts": figures}))
    if options.write:
        noted = {"swift": compiler(), "counts": {**noted["counts"], **figures}}
        with open(LIMITS, "w") as file:
            json.dump(noted, file, indent=1)
            file.write("\n")
        return 0
    failed = check(noted["counts"], figures)
    print(f"{2 * len(figures) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

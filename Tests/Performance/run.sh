#!/usr/bin/env bash
# Measures Castnet beside its competition, in turns on one machine, and prints a table of medians and ratios:
#     CASTNET_PEERS=FOLDER Tests/Performance/run.sh [--quick] [--repetitions N] [--json FILE] [--only TEXT]
# FOLDER holds the built programs of the peers; without it this skips and says so. In full at most an hour,
# with --quick at most five minutes. The figures go to FILE (.build/performance.json) as JSON, from which
# `report.py` makes the table and `chart.py` the chart.
# Exit code: 0 if every target is met, 1 if not, 64 for a wrong flag.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

if [ -z "${CASTNET_PEERS:-}" ]; then
    echo "skip performance: CASTNET_PEERS is not set"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
if [ -z "${CASTNET:-}" ]; then
    swift build --package-path "$root" -c release --product castnet >&2
    CASTNET=$(swift build --package-path "$root" -c release --show-bin-path)/castnet
fi
export CASTNET
# A network of its own, which ends with the run.
if [ "${CASTNET_LAB:-}" != 1 ]; then
    exec "$CASTNET" lab run --hosts 0 -- bash "$0" "$@"
fi
mkdir -p "$root/.build"
exec python3 "$here/measure.py" --json "$root/.build/performance.json" "$@"

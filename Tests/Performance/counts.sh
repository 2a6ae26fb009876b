#!/usr/bin/env bash
# Counts the instructions and allocations that a message costs, and holds them against counts.json:
#     Tests/Performance/counts.sh [--write] [--only TEXT]
# --write notes the new figures instead, to be looked at and committed with the change that explains them.
# Exit code: 0 if no figure is above its limit, 1 if one is, 64 for a wrong flag.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

missing=()
for tool in valgrind strip python3; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} -gt 0 ]; then
    echo "skip counts: there is no ${missing[*]}"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
if [ -z "${CASTNET:-}" ]; then
    swift build --package-path "$root" -c release --product castnet >&2
    swift build --package-path "$root" -c release --product Workloads >&2
    CASTNET=$(swift build --package-path "$root" -c release --show-bin-path)/castnet
fi
export CASTNET
# A network of its own, where loopback carries multicast.
if [ "${CASTNET_LAB:-}" != 1 ]; then
    exec "$CASTNET" lab run --hosts 0 -- bash "$0" "$@"
fi
exec python3 "$here/counts.py" "$@"

#!/usr/bin/env bash
# Fuzzes the admission of packets: `run.sh [SECONDS] [FOLDER]` starts from the committed corpus and keeps what
# it finds in FOLDER (a temporary one by default). `run.sh minimize FOLDER` takes the smallest set of what was
# found into the corpus. An input that breaks a rule is kept beside the caller, as crash-….
#
# FUZZ names a target that is built already; unset, it is built into .build/fuzz, in about ten seconds.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
corpus=$root/Tests/Fuzz/corpus
# The admission and the little of the core that it stands on.
sources=("$root"/Tests/Fuzz/AdmissionFuzz.swift "$root"/Sources/CastnetCore/Admission/*.swift
    "$root"/Sources/CastnetCore/{Counters/Counter,Time/Instant}.swift
    "$root"/Sources/CastnetCore/Wire/{FrameAge,FrameWire,WireError}.swift)
for source in "${sources[@]}"; do
    # Faults drop packets and judge none; they would bring all settings with them.
    [ "$(basename "$source")" = PacketFaults.swift ] || wanted+=("$source")
done

if [ -z "${FUZZ:-}" ]; then
    FUZZ=$root/.build/fuzz/admission
    mkdir -p "$(dirname "$FUZZ")"
    swiftc -O -wmo -swift-version 6 -parse-as-library -package-name castnet -sanitize=fuzzer,address \
        -o "$FUZZ" "${wanted[@]}" 2> >(grep -v 'Cannot export local symbol' >&2)
fi
# Swift's own crash report reads memory that the address sanitizer guards.
export SWIFT_BACKTRACE=enable=no

if [ "${1:-}" = minimize ]; then
    kept=$(mktemp -d)
    "$FUZZ" -merge=1 -max_len=2048 "$kept" "$corpus" "$2"
    # Each has its content for a name, but for what once broke a rule and stays.
    find "$corpus" -type f ! -name 'broke-*' -delete
    cp "$kept"/* "$corpus"/
    rm -rf "$kept"
    exit
fi
seconds=${1:-60}
found=${2:-$(mktemp -d)}
log=$(mktemp)
code=0
"$FUZZ" -max_total_time="$seconds" -max_len=2048 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    "$found" "$corpus" >"$log" 2>&1 || code=$?
if ((code != 0)); then
    grep -v '^#\|NEW\|REDUCE' "$log" | tail -n 60 >&2
fi
executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
ok=$( ((code == 0)) && echo true || echo false)
echo "{\"target\":\"admission\",\"seconds\":$seconds,\"executions\":${executions:-0},\"ok\":$ok}"
[ -n "${2:-}" ] || rm -rf "$found"
rm -f "$log"
exit "$code"

#!/usr/bin/env bash
# Fuzzes what takes bytes from the network: `run.sh TARGET [SECONDS] [FOLDER]` starts from the committed
# corpus and keeps what it finds in FOLDER (a temporary one by default). `run.sh minimize TARGET FOLDER` takes
# the smallest set of what was found into the corpus. An input that breaks a rule is kept beside the caller,
# as TARGET-crash-….
#
# The targets: admission (packets of multicast before libpgm sees them), hello, packets and machine (links).
# FUZZ names the program that is built already; unset, it is built into .build/fuzz. The admission is built in
# ten seconds; the three of links are one program with NIO in it, which takes a minute or two the first time.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
usage() {
    echo "usage: $0 admission|hello|packets|machine [SECONDS] [FOLDER] | minimize TARGET FOLDER" >&2
    exit 64
}

# The compiler on Linux warns of names that only the sanitizer's own linking needs.
quietly() { "$@" 2> >(grep -v 'Cannot export local symbol' >&2); }

# The admission and the little of the core that it stands on.
build_admission() {
    local source wanted=()
    for source in "$root"/Tests/Fuzz/AdmissionFuzz.swift "$root"/Sources/CastnetCore/Admission/*.swift \
        "$root"/Sources/CastnetCore/{Counters/Counter,Time/Instant}.swift \
        "$root"/Sources/CastnetCore/Wire/{FrameAge,FrameWire,WireError}.swift; do
        # Faults drop packets and judge none; they would bring all settings with them.
        [ "$(basename "$source")" = PacketFaults.swift ] || wanted+=("$source")
    done
    quietly swiftc -O -wmo -swift-version 6 -parse-as-library -package-name castnet \
        -sanitize=fuzzer,address -o "$FUZZ" "${wanted[@]}"
}

# All that links stand on, and NIO's buffers, as one library; libFuzzer's `main` comes with the last step.
build_links() {
    local package=(--package-path "$root/Tests/Fuzz" --scratch-path "$root/.build/fuzz/package"
        -c release --sanitize address --quiet)
    swift build "${package[@]}" >&2
    local products
    products=$(swift build "${package[@]}" --show-bin-path)
    quietly swiftc -sanitize=fuzzer,address -o "$FUZZ" "$products/libLinkFuzz.a"
}

minimizes=0
if [ "${1:-}" = minimize ]; then
    minimizes=1
    shift
    [ $# = 2 ] || usage
fi
target=${1:-}
case $target in
    admission) group=admission options=(-max_len=2048) ;;
    hello) group=links options=(-max_len=512) ;;
    packets) group=links options=(-max_len=1024) ;;
    machine) group=links options=(-max_len=512) ;;
    *) usage ;;
esac
[ "$group" = admission ] || options+=("--target=$target")
corpus=$root/Tests/Fuzz/corpus/$target

if [ -z "${FUZZ:-}" ]; then
    FUZZ=$root/.build/fuzz/$group
    mkdir -p "$(dirname "$FUZZ")"
    "build_$group"
fi
# Swift's own crash report reads memory that the address sanitizer guards.
export SWIFT_BACKTRACE=enable=no

if ((minimizes)); then
    kept=$(mktemp -d)
    "$FUZZ" -set_cover_merge=1 "${options[@]}" "$kept" "$corpus" "$2"
    # Each has its content for a name, but for what once broke a rule and stays.
    find "$corpus" -type f ! -name 'broke-*' -delete
    cp "$kept"/* "$corpus"/
    rm -rf "$kept"
    exit
fi
seconds=${2:-60}
found=${3:-$(mktemp -d)}
log=$(mktemp)
code=0
"$FUZZ" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$target-" "${options[@]}" "$found" "$corpus" >"$log" 2>&1 || code=$?
if ((code != 0)); then
    grep -v '^#\|NEW\|REDUCE' "$log" | tail -n 60 >&2
fi
executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
ok=$( ((code == 0)) && echo true || echo false)
echo "{\"target\":\"$target\",\"seconds\":$seconds,\"executions\":${executions:-0},\"ok\":$ok}"
[ -n "${3:-}" ] || rm -rf "$found"
rm -f "$log"
exit "$code"

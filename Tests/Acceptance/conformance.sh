#!/usr/bin/env bash
# The conformance kit on every carrier, and the decoding of links however the network cuts them.
# With --quick the same checks: they take well under a minute once the tests are built.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

cd "$ROOT" || exit 70
if ! built --build-tests >"$WORK/build" 2>&1; then
    tail -n 20 "$WORK/build"
    fail "the tests do not build"
    finish
fi
# run NAME FILTER: a step of Swift Testing; prints how many tests ran.
run() {
    local name=$1 results="$WORK/results-swift-testing.xml" count code=0
    rm -f "$results"
    swift test --skip-build --filter "$2" --xunit-output "$WORK/results.xml" >"$WORK/log" 2>&1 || code=$?
    count=$(grep -c '<testcase ' "$results" 2>/dev/null)
    emit_json step="$name" tests="${count:-0}" exit="$code" seconds="$SECONDS"
    grep ' recorded an issue ' "$WORK/log" | cut -c1-300
    check "$name" "[ $code = 0 ] && [ ${count:-0} -gt 0 ]"
}
run "every carrier conforms" 'ConformanceTests'
run "any segmentation decodes the same" 'PacketCodecTests/every'
finish

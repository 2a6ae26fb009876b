#!/usr/bin/env bash
# Fuzzes the admission of packets from the committed corpus, and libpgm behind the seam with what is admitted.
# With --quick for 10 seconds each, else for ten minutes each.
CASTNET=${CASTNET:-unused}
source "$(dirname "$0")/lib.sh" "$@"

seconds=600
((QUICK)) && seconds=10

admission=$("$ROOT/Tests/Fuzz/run.sh" "$seconds" 2>"$WORK/admission")
check "the admission holds its rules for $seconds s" "[ $? = 0 ] || { tail -n 40 $WORK/admission; false; }"
echo "$admission"
check_json "the corpus was played and more made of it" "$admission" \
    ".executions > $(find "$ROOT/Tests/Fuzz/corpus" -type f | wc -l)"

# Without libpgm there is nothing behind the seam.
if ! pkg-config --exists openpgm-5.3; then
    skip "libpgm behind the seam: no libpgm"
    finish
fi
(cd "$ROOT" && CASTNET_FUZZ_SECONDS=$seconds swift test --filter SeamHostileTests) >"$WORK/behind" 2>&1
check "libpgm survives what is admitted for $seconds s" "[ $? = 0 ] || { tail -n 40 $WORK/behind; false; }"
figures='s/^\([0-9]*\) packets in .*judged \([0-9]*\), longest call \([0-9.e-]*\) .*/\1 \2 \3/p'
read -r packets judged longest <<<"$(sed -n "$figures" "$WORK/behind")"
emit_json target=libpgm seconds="$seconds" packets="${packets:-0}" judged="${judged:-0}" \
    longest_call_s="${longest:-null}"
check "packets were judged" "[ ${judged:-0} -gt 0 ]"
finish

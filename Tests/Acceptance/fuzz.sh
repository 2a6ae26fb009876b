#!/usr/bin/env bash
# Fuzzes the admission of packets and what links make of bytes, each from its committed corpus, and libpgm
# behind the seam with what is admitted. For ten minutes each; with --quick for ten seconds, and of links only
# the corpora.
CASTNET=${CASTNET:-unused}
source "$(dirname "$0")/lib.sh" "$@"

# fuzz TARGET SECONDS: one line of JSON, and the checks that go with it.
fuzz() {
    local target=$1 seconds=$2 result
    result=$("$ROOT/Tests/Fuzz/run.sh" "$target" "$seconds" 2>"$WORK/$target")
    check "the $target target keeps its rules for $seconds s" \
        "[ $? = 0 ] || { tail -n 40 $WORK/$target; false; }"
    echo "$result"
    check_json "the corpus of $target was played and more made of it" "$result" \
        ".executions > $(find "$ROOT/Tests/Fuzz/corpus/$target" -type f | wc -l)"
}

seconds=600
((QUICK)) && seconds=10
fuzz admission "$seconds"
# The package manager builds everything anew where the environment is another than at the last build: what
# tells the tests something is set only when they are built.
build_tests() { (cd "$ROOT" && env -u CASTNET -u CASTNET_BUILT swift build --build-tests); }
check "the tests are built" "build_tests >$WORK/build 2>&1 || { tail -n 40 $WORK/build; false; }"
if ((QUICK)); then
    # Their fuzzer has NIO in it, which takes longer to build than all of this: the corpora are played alone.
    (cd "$ROOT" && swift test --skip-build --filter LinkCorpusTests) >"$WORK/links" 2>&1
    check "the corpora of links keep the rules" "[ $? = 0 ] || { tail -n 40 $WORK/links; false; }"
else
    for target in hello packets machine; do fuzz "$target" "$seconds"; done
fi

# Without libpgm there is nothing behind the seam.
if ! pkg-config --exists openpgm-5.3; then
    skip "libpgm behind the seam: no libpgm"
    finish
fi
(cd "$ROOT" && CASTNET_FUZZ_SECONDS=$seconds swift test --skip-build --filter SeamHostileTests) \
    >"$WORK/behind" 2>&1
check "libpgm survives what is admitted for $seconds s" "[ $? = 0 ] || { tail -n 40 $WORK/behind; false; }"
figures='s/^\([0-9]*\) packets in .*judged \([0-9]*\), longest call \([0-9.e-]*\) .*/\1 \2 \3/p'
read -r packets judged longest <<<"$(sed -n "$figures" "$WORK/behind")"
emit_json target=libpgm seconds="$seconds" packets="${packets:-0}" judged="${judged:-0}" \
    longest_call_s="${longest:-null}"
check "packets were judged" "[ ${judged:-0} -gt 0 ]"
finish

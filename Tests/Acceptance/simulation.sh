#!/usr/bin/env bash
# Five thousand random scenarios of the channel machines in virtual time, in a release build and within five
# minutes; then every protocol bug that is planted on purpose in a debug build is found by the same oracle.
source "$(dirname "$0")/lib.sh" "$@"

seeds=5000
((QUICK)) && seeds=400
build_test_program Simulator
result=$("$PROGRAM" seeds --count "$seeds" | tee /dev/stderr | grep '"what"')
echo "$result"
check_json "$seeds seeds, none fails" "$result" ".seeds == $seeds and .failed == 0"
check_json "within five minutes" "$result" '.seconds <= 300'
again() { "$PROGRAM" seeds --count 200 | jq -c 'del(.seconds)'; }
check "seeds come out alike when they are run again" 'again >"$WORK/a" && again | cmp -s - "$WORK/a"'
check "one command runs one seed again" '"$PROGRAM" seed 7 | grep -q "delivered: [1-9]"'
check "a release build has no planted bugs" \
    '"$PROGRAM" planted >"$WORK/none"; [ $? = 64 ] && grep -q "no planted bugs" "$WORK/none"'

build_test_program Simulator debug
only=()
((QUICK)) && only=(--channels)
planted=$("$PROGRAM" planted "${only[@]}")
echo "$planted"
check_json "every planted bug is found, at least twelve" "$(tail -n 1 <<<"$planted")" \
    '.caught == .planted and .caught >= 12'
finish

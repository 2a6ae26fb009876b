#!/usr/bin/env bash
# Five thousand random scenarios of the channel machines in virtual time, in a release build and within five
# minutes; then every protocol bug that is planted on purpose in a debug build is found by the same oracle.
source "$(dirname "$0")/lib.sh" "$@"

seeds=5000
((QUICK)) && seeds=400
build() {
    (cd "$ROOT" && swift build "$@" --product Simulator) >"$WORK/build" 2>&1 || tail -n 20 "$WORK/build"
}
simulator() { (cd "$ROOT" && "$(swift build -c "$1" --show-bin-path)/Simulator" "${@:2}"); }

build -c release
result=$(simulator release seeds --count "$seeds" | tee /dev/stderr | grep '"what"')
echo "$result"
check_json "$seeds seeds, none fails" "$result" ".seeds == $seeds and .failed == 0"
check_json "within five minutes" "$result" '.seconds <= 300'

build -c debug
planted=$(simulator debug planted)
echo "$planted"
check_json "every planted bug is found, at least twelve" "$(tail -n 1 <<<"$planted")" \
    '.caught == .planted and .caught >= 12'
finish

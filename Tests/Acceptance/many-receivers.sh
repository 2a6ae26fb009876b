#!/usr/bin/env bash
# 64 receivers on eight hosts of one bridge get all of it, large messages and batches of small ones.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

seconds=10 receivers=64
((QUICK)) && seconds=2
fanout_config
"$CASTNET" lab up --hosts 9 --json >/dev/null || { fail "no lab"; finish; }
pids=()
listeners 1 $receivers 8
for options in "--size 64KiB" "--size 64 --batch 256"; do
    # shellcheck disable=SC2086
    result=$(fan_out $options --seconds "$seconds" --members $receivers)
    echo "$result"
    check_json "$receivers receivers, $options: nothing lost" "$result" \
        ".members == $receivers and .sent > 0 and .lost == 0 and .received_min == .sent"
done
stop "${pids[@]}"
"$CASTNET" lab down
finish

#!/usr/bin/env bash
# Two thousand topics that are served, called by another node, and dropped, each with a fanout to a subscriber
# as young: each can be called half a second after `serve` has returned, nothing of them stays in the process
# or in the directory, and no multicast group is joined but those of the configuration.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
if [ "${CASTNET_LAB:-}" != 1 ]; then
    # The debug build is there already where the tests have run.
    build_test_program Cycles "$( ((QUICK)) && echo debug || echo release)"
    export CYCLES=$PROGRAM
fi
in_lab

count=2000
((QUICK)) && count=400
"$CASTNET" lab up --hosts 1 --json >/dev/null || { fail "no lab"; finish; }
cat >"$WORK/churn.yaml" <<'YAML'
node:      {interface: eth0, cluster: churn}
directory: {beacon: {group: 239.192.0.1, port: 7401}}
channels:  {all: {group: 239.192.7.9, port: 7500}}
policies:
  - {match: "news.**", kinds: [fanout], carrier: multicast, channel: all}
  - {match: "warm.**", carrier: persistent}
  - {match: "**", carrier: ephemeral}
YAML
timeout 540 "$CASTNET" lab exec h1 -- "$CYCLES" topics "$WORK/churn.yaml" --count "$count" \
    >"$WORK/churn" 2>"$WORK/churn.log"
check "$count topics, each called and heard, none known at the end" \
    "[ $? = 0 ] || { tail -n 5 $WORK/churn.log; false; }"
line=$(jq -cs 'if length == 10 then {topics: .[9].after, callable_max_s: (map(.callable_max_s) | max),
    groups: map(.groups), descriptors: map(.descriptors), threads: map(.threads),
    own_threads: map(.own_threads),
    resident_mb: map(.resident_bytes / 1e6 | floor)} else empty end' "$WORK/churn")
echo "$line"
check_json "each can be called within half a second" "$line" '.callable_max_s > 0 and .callable_max_s <= 0.5'
# The beacons, the channel, and the group of all hosts on both interfaces.
check_json "no group is joined but the configured ones" "$line" '.groups | all(. == 4)'
# A link closes a moment after its topic was dropped: a few may be seen, as many at the end as ever. The
# system's pools start workers when they see fit, but not one for a topic.
check_json "no descriptor and no thread is left behind" "$line" \
    "(.descriptors | (.[5:] | max) <= (.[:5] | max)) and (.own_threads | .[0] > 0 and .[9] <= .[0])
        and (.threads | .[9] <= .[0] + 2 * $(nproc))"
# Caches fill in the first half; growth in the second would be a leak.
check_json "memory does not grow" "$line" '.resident_mb | .[9] <= ([.[3:6][]] | max) * 1.05 + 1'
"$CASTNET" lab down
finish

#!/usr/bin/env bash
# A node with a channel open and a peer to hear from, and nothing to do, takes less than 1 % of a processor.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

seconds=60
((QUICK)) && seconds=8
fanout_config
"$CASTNET" lab up --hosts 2 --json >/dev/null || { fail "no lab"; finish; }
pids=()
for host in h1 h2; do
    start "$host" "$host" "$CASTNET" serve "$WORK/fanout.yaml" bench --join --name "$host" --json \
        --log-level error
done
for host in h1 h2; do
    eventually 20 "grep -qs '\"ready\"' $WORK/$host" || fail "$host is not up"
done
ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
# What meeting costs is no idling.
sleep 3
node=$(jq -r 'select(.event == "ready").pid' "$WORK/h1")
before=$(ticks "$node")
sleep "$seconds"
used=$(($(ticks "$node") - before))
line=$(jq -cn "{seconds: $seconds, processor_share: ($used / $(getconf CLK_TCK) / $seconds)}")
echo "$line"
check_json "an idle node takes less than 1 % of a processor" "$line" '.processor_share < 0.01'
stop "${pids[@]}"
"$CASTNET" lab down
finish

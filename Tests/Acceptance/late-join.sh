#!/usr/bin/env bash
# Members join one after the other while forty messages a second flow and a fifth of the datagrams is lost at
# their host: each has every message sent after its `ready`, in order, and none sent before it came. With
# --late-join retained each has everything from the first message on.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

joins=12
((QUICK)) && joins=4
cat >"$WORK/join.yaml" <<'YAML'
node:      {interface: eth0, cluster: join}
channels:  {group: {group: 239.192.9.12, port: 7710}}
policies:
  - {match: "join", kinds: [fanout], carrier: multicast, channel: group, late-join: retained}
  - {match: "**", carrier: persistent}
YAML
"$CASTNET" lab up --hosts 3 --offload off --json >/dev/null || { fail "no lab"; finish; }
"$CASTNET" lab fault h2 drop 20% udp in >/dev/null || fail "loss"
seconds=$((joins + 6))
timeout --kill-after=5 100 "$CASTNET" lab exec h1 -- "$CASTNET" send "$WORK/join.yaml" join --kind fanout \
    --name sender --size 700 --count $((40 * seconds)) --rate 40 --list --stay 5s --json --log-level error \
    >"$WORK/sent" 2>"$WORK/sent.log" &
sender=$!
eventually 20 "grep -q '\"sent\"' $WORK/sent" || fail "nothing is sent"
pids=()
for number in $(seq "$joins"); do
    sleep 0.7
    kind=new
    ((number % 2)) || kind=retained
    start h2 "$kind.$number" "$CASTNET" serve "$WORK/join.yaml" join --join --late-join "$kind" \
        --name "m$number" --json --log-level error
done
wait "$sender"
stop "${pids[@]}"
for file in "$WORK"/new.* "$WORK"/retained.*; do
    case $file in *.log) continue ;; esac
    started=$(stat -c %W "$file")
    jq -cs --arg name "${file##*/}" --argjson started "$started" --slurpfile sent \
        <(jq -c 'select(.event == "sent")' "$WORK/sent") '
        # A message is listed a moment after it was sent.
        ([.[] | select(.event == "ready") | .at_s] | first) as $ready
        | [.[] | select(.event == "message") | .seq] as $seqs
        | [$sent[] | select(.at_s > $ready + 0.02) | .seq] as $owed
        | [$sent[] | select(.at_s < $started) | .seq] as $early
        | {name: $name, got: ($seqs | length), ordered: ($seqs == ($seqs | sort | unique)),
           missing: ($owed - $seqs | length), early: ($early - ($early - $seqs) | length),
           first: ($seqs | min), losses: ([.[] | select(.event == "loss")] | length)}' "$file"
done >"$WORK/lines"
cat "$WORK/lines"
line=$(jq -cs '{joins: length, members: .}' "$WORK/lines")
check_json "everything sent after ready, in order" "$line" \
    "(.members | length) == $joins
        and all(.members[]; .missing == 0 and .ordered and .losses == 0 and .got > 0)"
check_json "nothing sent before it came" "$line" \
    'all(.members[] | select(.name | startswith("new")); .early == 0)'
check_json "retained: everything from the first message on" "$line" \
    'all(.members[] | select(.name | startswith("retained")); .first == 1)'
"$CASTNET" lab down
finish

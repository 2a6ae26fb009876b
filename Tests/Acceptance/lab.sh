#!/usr/bin/env bash
# The lab from the command line: up, exec, fault, status, down and their exit codes.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

up=$("$CASTNET" lab up --hosts 12 --json)
check "twelve hosts" '[ "$(wc -l <<<"$up")" = 12 ]'
check_json "a host's keys" "$(head -n 1 <<<"$up")" \
    '. == {host: "h1", netns: "castnet-h1", interface: "eth0", address: "10.77.0.11"}'
"$CASTNET" lab up 2>"$WORK/twice"
check "a second lab of the same prefix is refused" "[ $? = 64 ] && grep -q 'up already' '$WORK/twice'"
"$CASTNET" lab exec h3 -- sh -c 'exit 7'
check "exec hands the exit code on" "[ $? = 7 ]"
check "exec's command is open to every signal" \
    '"$CASTNET" lab exec h3 -- grep -q "SigBlk:.0000000000000000" /proc/self/status'
"$CASTNET" lab exec h99 -- true 2>/dev/null
check "an unknown host is unreachable" "[ $? = 69 ]"

"$CASTNET" lab fault h1 drop 5% udp && "$CASTNET" lab fault h1 rate 10Mbit/s in
check_json "faults show" "$("$CASTNET" lab status --json | head -n 1)" \
    '.faults == ["drop 0.05 udp in", "rate 10Mbit in"]'
"$CASTNET" lab fault h1 clear
check_json "faults clear" "$("$CASTNET" lab status --json | head -n 1)" '.faults == []'
"$CASTNET" lab fault h1 flood 2>/dev/null
check "an unknown fault is a usage error" "[ $? = 64 ]"
"$CASTNET" lab fault h2 blackout --for 200ms
check "a fault for a while ends by itself" "[ $? = 0 ]"
timeout -s TERM 1 "$CASTNET" lab fault h2 blackout --for 60s
check_json "an interrupted fault is taken off" "$("$CASTNET" lab status --json | sed -n 2p)" '.faults == []'

"$CASTNET" lab down
check "down leaves no namespace" '[ -z "$(ip netns list)" ]'
"$CASTNET" lab status 2>/dev/null
check "no lab is unreachable" "[ $? = 69 ]"
finish

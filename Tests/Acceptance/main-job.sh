#!/usr/bin/env bash
# The main job on a local bridge: three carriers between 18 hosts, and the same binary with another policy.
# With --quick the same work: it takes well under a minute.
source "$(dirname "$0")/lib.sh" "$@"

"$CASTNET" demo --json >"$WORK/demo" 2>"$WORK/errors"
code=$?
if ((code == 69)); then
    skip "main job: $(tail -n 1 "$WORK/errors")"
    finish
fi
cat "$WORK/demo"
tail -n 5 "$WORK/errors" >&2
check "the demo ends 0" "[ $code = 0 ]"
summary=$(tail -n 1 "$WORK/demo")
check_json "four steps, none failed" "$summary" '.event == "summary" and .steps == 4 and .failed == 0'
check_json "(a) 1,000 calls over exactly one connection" "$(sed -n 1p "$WORK/demo")" \
    '.ok and .carrier == "persistent" and .counts.replies == 1000 and .counts.connections_accepted == 1'
check_json "(b) a file and 10,000 messages at six agents, one copy on the wire" "$(sed -n 2p "$WORK/demo")" \
    '.ok and .carrier == "multicast" and .counts.agents_complete == 6 and .counts.unicast_copies == 0
     and .wire_bytes <= 1.15 * .counts.payload_bytes'
check_json "(c) 50 casts over connections that are closed" "$(sed -n 3p "$WORK/demo")" \
    '.ok and .carrier == "ephemeral" and .counts.handled == 50 and .counts.connections_open == 0'
check_json "(d) the same by persistent, a copy per member" "$(sed -n 4p "$WORK/demo")" \
    '.ok and .carrier == "persistent" and .counts.agents_complete == 6
     and (.wire_bytes / (6 * .counts.payload_bytes) | . > 0.85 and . < 1.15)'
finish

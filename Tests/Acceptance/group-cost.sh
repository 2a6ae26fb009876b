#!/usr/bin/env bash
# What a group costs its sender: the same bytes on the wire for 1, 8 and 24 members, and for a message of
# 64 MiB no more memory than limits.memory and 64 MiB in any process.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

seconds=5
((QUICK)) && seconds=2
memory=$((512 << 20))
fanout_config 'limits:    {memory: 512MiB, message: 64MiB}'

pids=()
"$CASTNET" lab up --hosts 5 --offload on --json >/dev/null || { fail "no lab"; finish; }
sizes=()
known=0
for count in 1 8 24; do
    listeners $((known + 1)) "$count" 4
    known=$count
    result=$(fan_out --size 64KiB --rate 100 --seconds "$seconds" --members "$count")
    echo "$result" | jq -c '. + {case: "\(.members) members"}'
    check_json "$count members have everything" "$result" ".members == $count and .lost == 0"
    sizes+=("$(jq '.wire_bytes / .sent' <<<"$result")")
done
line=$(jq -cn --argjson bytes "[${sizes[0]:-0},${sizes[1]:-0},${sizes[2]:-0}]" \
    '{wire_bytes_a_message: $bytes, spread: (($bytes | max) / ($bytes | min))}')
echo "$line"
check_json "the sender's bytes are within 10 % for 1, 8 and 24 members" "$line" '.spread <= 1.1'
stop "${pids[@]}"

pids=()
listeners 1 8 4
result=$(fan_out --size 64MiB --rate 1 --seconds 1 --members 8)
echo "$result" | jq -c '. + {case: "64 MiB to 8 members"}'
check_json "64 MiB reach 8 members" "$result" '.members == 8 and .lost == 0 and .sent >= 1'
check_json "within limits.memory and 64 MiB" "$result" ".rss_max_bytes <= $memory + 67108864"
stop "${pids[@]}"
finish

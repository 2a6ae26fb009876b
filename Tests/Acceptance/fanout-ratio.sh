#!/usr/bin/env bash
# 64 KiB to 1, 4 and 16 members beside stock OpenPGM on the same hosts, in turns, median of 5; then to 4
# members with every offload off. Nothing may be lost. CASTNET_PEERS names the folder of the built peers.
source "$(dirname "$0")/lib.sh" "$@"
if [ -z "${CASTNET_PEERS:-}" ] || [ ! -x "$CASTNET_PEERS/fan_pgm" ]; then
    skip "ratio to stock OpenPGM: CASTNET_PEERS is not set"
    finish
fi
in_lab

rounds=5 seconds=2 counts=(1 4 16)
((QUICK)) && rounds=1 seconds=1 counts=(1 4)
size=65536
cat >"$WORK/ratio.yaml" <<'YAML'
node:      {interface: eth0, cluster: ratio}
channels:  {bulk: {group: 239.192.9.4, port: 7630}}
policies:
  - {match: "bench", kinds: [fanout], carrier: multicast, channel: bulk}
  - {match: "**", carrier: persistent}
YAML

# lab OFFLOAD: a sender's host and four for members.
lab() {
    "$CASTNET" lab down 2>/dev/null
    mapfile -t addresses < <("$CASTNET" lab up --hosts 5 --offload "$1" --json | jq -r .address)
    # A bridge that snoops floods every port until its querier has been up for 10 s.
    sleep 11
}
# host NUMBER: the host of a member; more than four share them.
host() { echo "h$((2 + ($1 - 1) % 4))"; }

castnet_run() {
    local members=$1 number pids=()
    for ((number = 1; number <= members; number++)); do
        "$CASTNET" lab exec "$(host "$number")" -- "$CASTNET" bench listen "$WORK/ratio.yaml" bench \
            --name "l$number" --json --log-level error >/dev/null 2>>"$WORK/errors" &
        pids+=($!)
    done
    "$CASTNET" lab exec h1 -- "$CASTNET" bench fanout "$WORK/ratio.yaml" bench --size "$size" \
        --seconds "$seconds" --members "$members" --json --log-level error 2>>"$WORK/errors" |
        jq -c '{mbps: (.bytes_per_s / 1e6), lost, cpu_s_per_gb}'
    kill -TERM "${pids[@]}" 2>/dev/null
    wait "${pids[@]}" 2>/dev/null
}

pgm_run() {
    local members=$1 number pids=() shared="$WORK/shared" port=$((20000 + RANDOM % 20000)) peers=()
    { head -c 8 /dev/zero | tr '\0' '\377'; head -c $((120 + 128 * 256)) /dev/zero; } >"$shared"
    local options=(--n "$members" --size "$size" --mode raw --shm "$shared" --port "$port" --window 2048
        --secs "$seconds")
    # With sixteen members this size of window is what it takes without loss.
    ((members >= 16)) && options+=(--window 1024)
    for ((number = 1; number <= members; number++)); do
        local address=${addresses[$((1 + (number - 1) % 4))]}
        peers+=("$address")
        "$CASTNET" lab exec "$(host "$number")" -- "$CASTNET_PEERS/fan_pgm" recv --ip "$address" \
            --id $((number - 1)) --peer "${addresses[0]}" "${options[@]}" >/dev/null 2>>"$WORK/errors" &
        pids+=($!)
    done
    "$CASTNET" lab exec h1 -- timeout 60 "$CASTNET_PEERS/fan_pgm" send --ip "${addresses[0]}" --id 0 \
        --peer "$(IFS=,; echo "${peers[*]}")" "${options[@]}" 2>>"$WORK/errors" |
        jq -c '{mbps: .MBps, lost, cpu_s_per_gb: .cpu_per_GB}'
    kill -TERM "${pids[@]}" 2>/dev/null
    wait "${pids[@]}" 2>/dev/null
}

# compare NAME MEMBERS TARGET: runs both in turns and judges the medians.
compare() {
    local name=$1 members=$2 target=$3 ours=() theirs=() result
    for ((round = 1; round <= rounds; round++)); do
        ours+=("$(castnet_run "$members")")
        theirs+=("$(pgm_run "$members")")
    done
    result=$(jq -cn --arg name "$name" --argjson members "$members" \
        --argjson ours "[$(IFS=,; echo "${ours[*]}")]" --argjson theirs "[$(IFS=,; echo "${theirs[*]}")]" '
        def median: sort | .[length / 2 | floor];
        {name: $name, members: $members, mbps: ($ours | map(.mbps) | median),
         stock_mbps: ($theirs | map(.mbps) | median), lost: ($ours | map(.lost) | add),
         stock_lost: ($theirs | map(.lost) | add),
         runs: ($ours | map(.mbps | floor)), stock_runs: ($theirs | map(.mbps | floor)),
         cpu_s_per_gb: ($ours | map(.cpu_s_per_gb) | median)}
        | .ratio = (if .stock_mbps > 0 then .mbps / .stock_mbps else 0 end)')
    echo "$result"
    check_json "$name, $members members: at least $target times stock OpenPGM, nothing lost" "$result" \
        ".ratio >= $target and .lost == 0"
}

lab on
for members in "${counts[@]}"; do compare "offloads on" "$members" 5; done
lab off
compare "offloads off" 4 1.5
"$CASTNET" lab down
finish

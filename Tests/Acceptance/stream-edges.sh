#!/usr/bin/env bash
# Packet numbers that come to their end, a blackout longer than the window, and members that join in the
# middle of a stream while a fifth of all packets is lost.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

count=20000 joins=12
((QUICK)) && count=8000 joins=2
cat >"$WORK/edges.yaml" <<'YAML'
node:      {interface: eth0, cluster: edges, testing: true}
channels:
  bulk: {group: 239.192.9.3, port: 7620, repair: pgm-only, faults: {drop: 0.0}}
policies:
  - {match: "edges.**", kinds: [fanout], carrier: multicast, channel: bulk, fallback: none}
  - {match: "**", carrier: persistent}
YAML
"$CASTNET" lab up --hosts 3 --json >/dev/null || { fail "no lab"; finish; }

# member HOST NAME TOPIC [SET…]: a process that writes every message to NAME.out; its pid in $pid.
member() {
    local host=$1 name=$2 topic=$3 options=()
    shift 3
    for option in "$@"; do options+=(--set "channels.bulk.$option"); done
    "$CASTNET" lab exec "$host" -- "$CASTNET" serve "$WORK/edges.yaml" "$topic" --join --name "$name" \
        --json --log-level error "${options[@]}" >"$WORK/$name.out" 2>"$WORK/$name.err" &
    pid=$!
    for _ in $(seq 200); do grep -q '"ready"' "$WORK/$name.out" && return; sleep 0.05; done
    fail "$name is not ready"
}
# sender HOST NAME TOPIC ARGUMENT…: a process that sends to TOPIC; its pid in $pid.
sender() {
    local host=$1 name=$2 topic=$3
    shift 3
    "$CASTNET" lab exec "$host" -- "$CASTNET" send "$WORK/edges.yaml" "$topic" --kind fanout \
        --name "$name" --size 1200 --json --log-level error "$@" >"$WORK/$name.out" 2>"$WORK/$name.err" &
    pid=$!
}
end_member() { kill -TERM "$1" 2>/dev/null; wait "$1"; }

# account NAME: what a member got: how many, in order or not, losses, and counters that matter.
account() {
    jq -cs '(map(select(.event == "message") | .seq)) as $seq | (.[-1]) as $sum
        | {messages: ($seq | length), first: $seq[0], last: $seq[-1],
           contiguous: ($seq == [range($seq[0]; $seq[-1] + 1)]), losses: $sum.losses,
           repaired: ($sum.counters["stream.repaired.pgm"] // 0),
           resets: ($sum.counters["pgm.in.reset"] // 0),
           dropped: ($sum.counters["pgm.rejected.fault"] // 0)}' "$WORK/$1.out"
}

# Numbers begin 4,000 before their end on both sides, each sends to the other, a tenth is lost both ways.
wrap=(faults.shift=4294963296 faults.drop=0.1 "faults.types=[odata, rdata, nak]")
sets=()
for option in "${wrap[@]}"; do sets+=(--set "channels.bulk.$option"); done
member h1 w1 edges.wrap2 "${wrap[@]}"; w1=$pid
member h2 w2 edges.wrap1 "${wrap[@]}"; w2=$pid
sender h1 s1 edges.wrap1 --members 1 --members-timeout 20s --count "$count" --stay 3s "${sets[@]}"; s1=$pid
sender h2 s2 edges.wrap2 --members 1 --members-timeout 20s --count "$count" --stay 3s "${sets[@]}"; s2=$pid
wait "$s1" "$s2"
end_member "$w1"; end_member "$w2"
for name in w1 w2; do
    result=$(account "$name")
    echo "$result"
    check_json "$name: in order and complete past the end of the numbers" "$result" \
        ".messages == $count and .first == 1 and .contiguous and .losses == 0 and .repaired > 0"
done

# A member hears nothing for 2.5 s while the window of 1,024 packets moves on.
member h2 b1 edges.blackout window=1024 retention=64MiB; b1=$pid
member h3 b2 edges.blackout window=1024 retention=64MiB; b2=$pid
sender h1 bs edges.blackout --members 2 --members-timeout 20s --rate 2000 --count 16000 --stay 1s \
    --set channels.bulk.window=1024 --set channels.bulk.retention=64MiB; bs=$pid
for _ in $(seq 100); do (($(grep -c '"message"' "$WORK/b1.out") > 2000)) && break; sleep 0.05; done
"$CASTNET" lab fault h2 blackout --for 2.5s
over=$(date +%s.%N)
wait "$bs"
end_member "$b1"; end_member "$b2"
gap=$(jq -cs --argjson over "$over" '
    (map(select(.event == "message"))) as $all | ([$all[].seq]) as $seq
    | ([range(1; $seq | length) | select($seq[.] != $seq[. - 1] + 1)]) as $gaps
    | {over: $over, gaps: ($gaps | length), missing: (16000 - ($seq | length)), last: $seq[-1],
       losses: .[-1].losses, resets: (.[-1].counters["pgm.in.reset"] // 0),
       back_s: ([$all[].at_s | select(. > $over)][0] - $over),
       paused_s: ([range(1; $all | length) | $all[.].at_s - $all[. - 1].at_s] | max)}' "$WORK/b1.out")
echo "$gap"
check_json "blackout: one gap, and the stream goes on within 200 ms" "$gap" \
    '.gaps == 1 and .missing > 0 and .last == 16000 and .back_s < 0.2'
other=$(account b2)
check_json "blackout: the other member has everything" "$other" '.messages == 16000 and .contiguous'

# Members join a running stream, a fifth of all packets lost at each of them.
sender h1 js edges.join --members 1 --members-timeout 20s --rate 3000 --count $((joins * 4500 + 20000)) \
    --list; js=$pid
member h3 anchor edges.join; anchor=$pid
for _ in $(seq 200); do (($(grep -c '"message"' "$WORK/anchor.out") > 500)) && break; sleep 0.05; done
whole=0
for ((number = 1; number <= joins; number++)); do
    member h2 "j$number" edges.join faults.drop=0.2 faults.direction=in "faults.seed=$number"
    sleep 1
    end_member "$pid"
    result=$(account "j$number")
    ready=$(jq -s 'map(select(.event == "ready"))[0].at_s // 0' "$WORK/j$number.out")
    # The first message that was sent after this member was ready.
    owed=$(jq -n --argjson ready "$ready" \
        'first(inputs | select(.event == "sent" and .at_s > $ready) | .seq)' "$WORK/js.out")
    result=$(jq -c --argjson owed "${owed:-0}" '. + {owed: $owed}' <<<"$result")
    echo "$result"
    jq -e '.contiguous and .losses == 0 and .messages > 1000 and .first <= .owed and .dropped > 100' \
        <<<"$result" >/dev/null && ((whole += 1))
done
end_member "$js"; end_member "$anchor"
check "0 missing after ready in $whole of $joins joins" "[ $whole = $joins ]"
"$CASTNET" lab down
finish

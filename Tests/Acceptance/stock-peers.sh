#!/usr/bin/env bash
# A stock OpenPGM sender and receiver (ZeroMQ's epgm) on the group and port of Castnet nodes, at the same
# time: each side delivers everything of its own. With --quick fewer messages.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
EPGM=$ROOT/Tests/Acceptance/epgm.py
command -v python3 >/dev/null || { skip "all: no python3"; finish; }
why=$(python3 "$EPGM" has 2>&1) || { skip "all: $why"; finish; }
in_lab

messages=1000 size=65536 stock=60000 stock_size=1000
((QUICK)) && messages=150 stock=8000
group=239.192.9.3
address() { echo "10.77.0.$((10 + ${1#h}))"; }

# together NAME PORT CASTNET-SENDER STOCK-SENDER CASTNET-RECEIVERS STOCK-RECEIVERS, each a list of hosts.
together() {
    local name=$1 port=$2 sender=$3 stock_sender=$4 receivers=($5) stock_receivers=($6)
    local host pids=() castnets=() stocks=() sent result reports=()
    rm -f "$WORK"/serve-* "$WORK"/stock-*
    cat >"$WORK/castnet.yaml" <<YAML
node:      {interface: eth0, cluster: stock}
channels:  {shared: {group: $group, port: $port}}
policies:
  - {match: "**", kinds: [fanout], carrier: multicast, channel: shared, fallback: none}
YAML
    for host in "${stock_receivers[@]}"; do
        start "$host" "stock-$host" python3 "$EPGM" receive "epgm://$(address "$host");$group:$port" \
            --count "$stock"
    done
    stocks=("${pids[@]}") pids=()
    for host in "${receivers[@]}"; do
        start "$host" "serve-$host" "$CASTNET" serve "$WORK/castnet.yaml" news --join \
            --name "serve-$host" --json --log-level warning
    done
    castnets=("${pids[@]}") pids=()
    check "$name: everybody is ready" "eventually 20 '[ \$(cat \"$WORK\"/serve-* \"$WORK\"/stock-* |
        grep -c ready) = $((${#receivers[@]} + ${#stock_receivers[@]})) ]'"
    start "$stock_sender" sent python3 "$EPGM" send "epgm://$(address "$stock_sender");$group:$port" \
        --count "$stock" --size "$stock_size"
    stocks+=("${pids[@]}")
    # The stock sender waits a second before its first message; this one sends for as long as that one.
    sent=$(on "$sender" "$CASTNET" send "$WORK/castnet.yaml" news --kind fanout --name send --json \
        --log-level warning --size "$size" --count "$messages" --rate $((messages / 3)) --in-flight 8 \
        --receipt received --members ${#receivers[@]} 2>"$WORK/send.log" | tail -n 1)
    wait "${stocks[@]}"
    stop "${castnets[@]}"

    check_json "$name: every fanout is complete" "$sent" \
        ".accepted == $messages and .by_carrier.multicast == $messages"
    for host in "${receivers[@]}"; do
        result=$(tail -n 1 "$WORK/serve-$host")
        check_json "$name: Castnet on $host has everything" "$result" \
            ".messages == $messages and .losses == 0 and .by_carrier.multicast == $messages"
        reports+=("$(jq -c '{messages, losses, repaired_by, counters: (.counters | with_entries(select(
            .key | startswith("pgm.rejected") or startswith("stream.repaired") or startswith("seam")
            or startswith("kernel"))))}' <<<"$result")")
    done
    check_json "$name: the stock sender has sent" "$(cat "$WORK/sent")" ".sent == $stock"
    for host in "${stock_receivers[@]}"; do
        result=$(tail -n 1 "$WORK/stock-$host")
        [ ! -s "$WORK/stock-$host.log" ] || tail -n 3 "$WORK/stock-$host.log"
        check_json "$name: the stock receiver on $host has everything" "$result" \
            ".received == $stock and .missing == 0 and .duplicates == 0 and .disordered == 0"
        reports+=("$result")
    done
    for result in "${reports[@]}"; do emit_json together="$name" port="$port" report="$result"; done
    emit_json together="$name" sender="$(jq -c '{sent, seconds, counters: (.counters | with_entries(select(
        .key | startswith("pgm.rejected") or startswith("pgm.out") or startswith("kernel"))))}' <<<"$sent")"
}

"$CASTNET" lab up --hosts 4 --json >/dev/null || { fail "no lab"; finish; }
# 7500 is libzmq's number for the session inside PGM as well, so there everybody sees everybody's packets.
together "hosts of their own" 7500 h1 h2 h3 h4
# ZeroMQ does not loop its packets back: a stock receiver never hears the stock sender of its own host.
together "the same hosts" 7500 h1 h2 "h1 h2 h3" "h1 h3"
together "both senders on one host, another session" 7600 h1 h1 "h1 h2" "h2 h3"
"$CASTNET" lab down
finish

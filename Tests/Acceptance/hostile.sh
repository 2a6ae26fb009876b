#!/usr/bin/env bash
# Hostile PGM packets of every kind at two members and a sender under traffic: from a stranger to the group
# and to single nodes, in the sender's name, and from a neighbour on the sender's host. Processes live, all
# traffic arrives, what is hostile is refused to the last packet, and the engine's processor time stays
# bounded.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
if ! command -v python3 >/dev/null; then
    skip "all: no python3"
    finish
fi
in_lab

count=20000
# Microseconds of the engine's processor time for a hostile packet; the kernel counts it in steps of 10 ms.
cpu_us_max=200
if ((QUICK)); then
    count=300
    cpu_us_max=2000
fi
group=239.192.9.3 port=7620
cat >"$WORK/hostile.yaml" <<YAML
node:      {interface: eth0, cluster: hostile}
channels:  {bulk: {group: $group, port: $port}}
policies:
  - {match: "hostile", kinds: [fanout], carrier: multicast, channel: bulk, fallback: none}
  - {match: "**", carrier: persistent}
YAML
"$CASTNET" lab up --hosts 4 --json >"$WORK/hosts" || { fail "no lab"; finish; }
address() { jq -r "select(.host == \"$1\").address" "$WORK/hosts"; }

for host in h2 h3; do
    "$CASTNET" lab exec "$host" -- "$CASTNET" serve "$WORK/hostile.yaml" hostile --join --name "$host" \
        --json --stats 100ms --log-level error >"$WORK/$host.out" 2>"$WORK/$host.err" &
    members+=($!)
done
for host in h2 h3; do
    for _ in $(seq 200); do grep -q '"ready"' "$WORK/$host.out" && break; sleep 0.1; done
done
"$CASTNET" lab exec h1 -- "$CASTNET" send "$WORK/hostile.yaml" hostile --kind fanout --name h1 --size 1200 \
    --count 100000000 --rate 200 --members 2 --members-timeout 20s --json --stats 100ms --log-level error \
    >"$WORK/h1.out" 2>"$WORK/h1.err" &
sender=$!
for _ in $(seq 200); do grep -q '"stats"' "$WORK/h1.out" && break; sleep 0.1; done

# `lab exec` becomes its command, so what bash started is the process itself.
receivers=(--victim "h2:receiver:${members[0]}:$(address h2):$WORK/h2.out"
    --victim "h3:receiver:${members[1]}:$(address h3):$WORK/h3.out")
everybody=("${receivers[@]}" --victim "h1:sender:$sender:$(address h1):$WORK/h1.out")

# attack HOST MODE VICTIM…: a line of figures a kind, each checked.
attack() {
    local host=$1 mode=$2 line
    shift 2
    "$CASTNET" lab exec "$host" -- python3 "$ROOT/Tests/Acceptance/hostile.py" "$mode" --group "$group" \
        --port "$port" --interface "$(address "$host")" --source "$(address h1)" --count "$count" \
        --rate 5000 --seed "${SEED:-1}" "$@" ${KINDS:-} >"$WORK/$mode.out" 2>"$WORK/$mode.err"
    check "$mode: the generator ends 0" "[ $? = 0 ] || { cat $WORK/$mode.err; false; }"
    cat "$WORK/$mode.out"
    while read -r line; do
        check_json "$mode $(jq -r '.kind + " at " + (.victims | keys | join(","))' <<<"$line")" "$line" \
            ".victims | all(.lives and .accounted and .engine_us_per_packet <= $cpu_us_max)"
    done <"$WORK/$mode.out"
}

started=$SECONDS
attack h4 group "${everybody[@]}"
attack h4 unicast "${receivers[@]:0:2}" "${everybody[@]:4:2}"
attack h1 neighbour "${everybody[@]}"
attack h4 forged "${receivers[@]}"
seconds=$((SECONDS - started))

rss=$(awk '/VmHWM/ {print $2 * 1024}' "/proc/$sender/status")
kill -TERM "$sender" 2>/dev/null
wait "$sender"
sent=$(grep '"summary"' "$WORK/h1.out" | tail -n 1)
# What is under way arrives before the members say goodbye.
for host in h2 h3; do
    for _ in $(seq 100); do
        messages=$(tail -n 50 "$WORK/$host.out" |
            jq -s 'map(select(.event == "stats")) | last | .messages // 0')
        [ "$messages" = "$(jq '.sent // -1' <<<"$sent")" ] && break
        sleep 0.1
    done
done
kill -TERM "${members[@]}" 2>/dev/null
wait "${members[@]}"
for host in h2 h3; do
    heard=$(grep '"summary"' "$WORK/$host.out" | tail -n 1)
    emit_json host="$host" seconds="$seconds" sent="$(jq '.sent // null' <<<"$sent")" \
        heard="$(jq -c '{messages, losses, duplicates, repaired_by, rss_max_bytes}' <<<"${heard:-null}")"
    check_json "$host: all of the traffic, no loss" "${heard:-null}" \
        ".messages == $(jq '.sent // -1' <<<"$sent") and .messages > 0 and .losses == 0"
done
emit_json sender_rss_max_bytes="${rss:-null}" \
    sender_counters="$(jq -c '.counters // null' <<<"$sent")"
"$CASTNET" lab down
finish

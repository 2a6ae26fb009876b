#!/usr/bin/env bash
# A node that starts and stops a thousand times, with traffic each time, leaves nothing behind in its process.
# A hundred idle links cost less than a hundredth of a core, a thousand less than a twentieth, and no thread.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
if [ "${CASTNET_LAB:-}" != 1 ]; then
    # The debug build is there already where the tests have run.
    build_test_program Cycles "$( ((QUICK)) && echo debug || echo release)"
    export CYCLES=$PROGRAM
fi
in_lab

count=1000 idle=20 numbers="100 1000"
((QUICK)) && count=50 idle=5
"$CASTNET" lab up --hosts 2 --json >/dev/null || { fail "no lab"; finish; }
cat >"$WORK/cycles.yaml" <<'YAML'
node:      {interface: eth0, cluster: cycles}
directory: {beacon: {group: 239.192.0.1, port: 7401, interval: 200ms}}
channels:  {all: {group: 239.192.7.9, port: 7500, retention: 8MiB, rate: 20MB/s}}
policies:
  - {match: "news", kinds: [fanout], carrier: multicast, channel: all}
  - {match: "cycle", carrier: persistent}
  - {match: "**", carrier: ephemeral}
YAML
timeout 540 "$CASTNET" lab exec h1 -- "$CYCLES" nodes "$WORK/cycles.yaml" --count "$count" \
    >"$WORK/cycles" 2>"$WORK/cycles.log"
check "$count cycles, each with its traffic" "[ $? = 0 ] || { tail -n 5 $WORK/cycles.log; false; }"
# Caches fill in the first half; growth in the second would be a leak.
line=$(jq -cs 'if length == 10 then {cycles: .[9].after, descriptors: map(.descriptors),
    threads: map(.threads), resident_mb: map(.resident_bytes / 1e6 | floor)} else empty end' "$WORK/cycles")
echo "$line"
check_json "no descriptor and no thread is left behind" "$line" \
    '(.descriptors | .[9] <= .[0]) and (.threads | .[9] <= .[0])'
check_json "memory does not grow" "$line" '.resident_mb | .[9] <= ([.[3:6][]] | max) * 1.05 + 1'

# cpu PID: processor time so far, in hundredths of a second.
cpu() { awk '{print $14 + $15}' "/proc/$1/stat"; }
threads() { ls "/proc/$1/task" | wc -l; }

# idle_links NUMBER: two nodes with so many persistent links, each used once, then left alone.
idle_links() {
    local number=$1 pids=() server client before after
    cat >"$WORK/idle.yaml" <<YAML
node:      {interface: eth0, cluster: idle$number}
policies:  [{match: "**", carrier: persistent, connections: $number}]
limits:    {connections: 2000, per-peer: 2000, per-address: 2000}
admin:     {listen: "unix:$WORK/\${ROLE}.$number"}
YAML
    ROLE=server start h2 "server$number" "$CASTNET" serve "$WORK/idle.yaml" idle --name server --reply echo \
        --json --log-level error
    ROLE=client start h1 "client$number" bash -c 'echo $$ >"$0" && exec "$@"' "$WORK/client$number.pid" \
        "$CASTNET" send "$WORK/idle.yaml" idle --kind call --count "$number" --in-flight 64 --members 1 \
        --stay "$((idle + 15))s" --name client --json --log-level error
    eventually 30 "[ \"\$(links client $number)\" = $number ]" || fail "$number links did not come about"
    server=$(jq -r 'select(.event == "ready") | .pid' "$WORK/server$number")
    client=$(cat "$WORK/client$number.pid")
    sleep 2
    before=($(cpu "$server") $(cpu "$client") $(threads "$server") $(threads "$client"))
    sleep "$idle"
    after=($(cpu "$server") $(cpu "$client") $(threads "$server") $(threads "$client"))
    line=$(emit_json links="$(links client "$number")" seconds="$idle" \
        server_core="$(share "${before[0]}" "${after[0]}")" \
        client_core="$(share "${before[1]}" "${after[1]}")" \
        threads_before="[${before[2]},${before[3]}]" threads_after="[${after[2]},${after[3]}]")
    stop "${pids[@]}"
}
links() {
    "$CASTNET" status --admin "unix:$WORK/$1.$2" --json 2>/dev/null | jq '[.links[] | select(.open)] | length'
}
share() { awk -v a="$1" -v b="$2" -v s="$idle" 'BEGIN { printf "%.4f", (b - a) / 100 / s }'; }

for number in $numbers; do
    idle_links "$number"
    echo "$line"
    most=0.01
    ((number > 100)) && most=0.05
    # Threads that the handlers had may go meanwhile.
    check_json "$number idle links cost each end less than $most of a core, and no thread" "$line" \
        ".links == $number and .server_core < $most and .client_core < $most
            and .threads_after[0] <= .threads_before[0] and .threads_after[1] <= .threads_before[1]"
done
"$CASTNET" lab down
finish

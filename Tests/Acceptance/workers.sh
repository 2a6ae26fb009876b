#!/usr/bin/env bash
# Four workers on one host that serve the same topic: under names of their own, and all behind one host name,
# which is opaque (`host1@backend`) and stays whole, told apart by their instances. Each is reached alone, and
# nobody else by its name; who calls any of them, or any behind the name, takes strict turns.
#
# A line of figures a case. `handled` counts the calls of one client by worker; `strict` says whether each
# round of four calls, in the order in which they were sent, reached the four workers in the same order.
# `castnet send` has one target: calls with several targets come from several processes at the same time.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

count=2000
((QUICK)) && count=400
"$CASTNET" lab up --hosts 2 --json >"$WORK/hosts" || { fail "no lab"; finish; }
address=$(jq -r 'select(.host == "h1").address' "$WORK/hosts")

# pool NAME: the four workers of a case, which has a cluster of its own; in `pids`.
pool() {
    local number options
    mkdir "$WORK/$1"
    cat >"$WORK/$1.yaml" <<YAML
node:      {interface: eth0, cluster: $1}
policies:  [{match: "**", carrier: persistent, balance: round-robin}]
YAML
    pids=()
    for number in 1 2 3 4; do
        options=()
        [ "$1" = one-name ] && options=(--server host1@backend --set "node.instance=w$number")
        start h1 "$1/w$number" "$CASTNET" serve "$WORK/$1.yaml" work --name "node-$number" --json \
            --log-level error "${options[@]}"
    done
    eventually 20 "[ \$(grep -ls '\"ready\"' $WORK/$1/w? | wc -l) = 4 ]" || fail "$1: the workers are not up"
}
# call POOL CLIENT OPTIONS…: calls from the other host, once all four are known.
call() {
    on h2 "$CASTNET" send "$WORK/$1.yaml" work --kind call --name "$2" --members 4 --size 64 --json \
        --log-level error "${@:3}" >"$WORK/$1/$2" 2>"$WORK/$1/$2.log"
}
# figures POOL CLIENT: what became of a client's calls, once the workers have ended.
figures() {
    jq -cn --arg pool "$1" --arg client "$2" --slurpfile told "$WORK/$1/$2" '
        [inputs | select(.event == "message" and .from == $client)
            | {seq, worker: (input_filename | split("/") | last)}]
        | sort_by(.seq) | map(.worker) as $turns
        | [$told[] | select(.event == "outcome")] as $ends
        | {pool: $pool, client: $client, by_outcome: $told[-1].by_outcome,
           max_s: ($ends | map(.latency_s) | max),
           handled: ($turns | group_by(.) | map({key: .[0], value: length}) | from_entries)}
        | .difference = ([.handled.w1, .handled.w2, .handled.w3, .handled.w4] | map(. // 0) | max - min)
        | .strict = (($turns | length >= 4) and ($turns[:4] | unique | length) == 4
            and all(range(4; $turns | length); $turns[.] == $turns[. - 4]))' "$WORK/$1"/w?
}

# told_apart POOL CLIENT WORKER
told_apart() {
    local line
    line=$(figures "$1" "$2")
    echo "$line"
    check_json "$1: calls to $3 reach $3 and nobody else" "$line" \
        ".by_outcome == {accepted: $((count / 10))} and .handled == {$3: $((count / 10))}"
}
# in_turns POOL CLIENT WHAT
in_turns() {
    local line
    line=$(figures "$1" "$2")
    echo "$line"
    check_json "$1: $3: equal shares, in strict turns" "$line" \
        ".by_outcome == {accepted: $count} and ([.handled[]] | add) == $count
            and .difference <= 1 and .strict"
}
# unknown POOL CLIENT TARGET
unknown() {
    local line
    line=$(figures "$1" "$2")
    echo "$line"
    check_json "$1: nobody is $3: unroutable at once" "$line" \
        '.by_outcome == {unroutable: 4} and .max_s < 0.5 and .handled == {}'
}

# Names of their own: each is a server.
pool own-names
calling=()
for number in 1 2 3 4; do
    call own-names "to-$number" --server "node-$number" --count $((count / 10)) --in-flight 8 & calling+=($!)
done
call own-names any --count "$count" --in-flight 8 & calling+=($!)
call own-names one-at-a-time --count "$count" & calling+=($!)
wait "${calling[@]}"
call own-names nobody --server node-5 --mandatory --count 4
stop "${pids[@]}"
for number in 1 2 3 4; do told_apart own-names "to-$number" "w$number"; done
in_turns own-names any "any of them"
in_turns own-names one-at-a-time "any of them, one call after the other"
unknown own-names nobody "node-5"

# One host name for all.
pool one-name
calling=()
for number in 1 2 3 4; do
    call one-name "to-$number" --server "host1@backend/w$number" --count $((count / 10)) --in-flight 8 &
    calling+=($!)
done
call one-name named --server host1@backend --count "$count" --in-flight 8 & calling+=($!)
call one-name named-slowly --server host1@backend --count "$count" & calling+=($!)
call one-name any --count "$count" --in-flight 8 & calling+=($!)
wait "${calling[@]}"
# Parts of the name, and whatever looks like it, are nobody's.
nobodies=(host1@other host1@backend/w9 host1@other/w3 host1 backend @backend host1@backend2 w3)
calling=()
for number in "${!nobodies[@]}"; do
    call one-name "nobody-$number" --server "${nobodies[number]}" --mandatory --count 4 & calling+=($!)
done
wait "${calling[@]}"
on h2 "$CASTNET" members "$WORK/one-name.yaml" --name looker --json --log-level error >"$WORK/members"
stop "${pids[@]}"
for number in 1 2 3 4; do told_apart one-name "to-$number" "w$number"; done
in_turns one-name named "any behind host1@backend"
in_turns one-name named-slowly "any behind host1@backend, one call after the other"
in_turns one-name any "any of them"
for number in "${!nobodies[@]}"; do unknown one-name "nobody-$number" "${nobodies[number]}"; done
line=$(jq -cs 'map(select(.topics | index("work")) | {node, server, instance, address, state})
    | sort_by(.node)' "$WORK/members")
echo "$line"
check_json "members: all four, with their server and instance" "$line" "
    map(\"\(.node) \(.server) \(.instance) \(.state)\")
        == [(\"1\", \"2\", \"3\", \"4\") | \"node-\" + . + \" host1@backend w\" + . + \" alive\"]
    and (map(.address) | unique | length == 4 and all(startswith(\"$address:\")))"
"$CASTNET" lab down
finish

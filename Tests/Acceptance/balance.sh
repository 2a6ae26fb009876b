#!/usr/bin/env bash
# Who gets the next message. `capacity`: servers whose handlers take 10, 20 and 40 ms get 4:2:1, saturated
# and at half of what they can do, with one handler at a time and with many, from one client and from two; a
# job of ten seconds queues no other call behind it, whoever sent it. `round-robin`: no client gives a server
# two calls more than another, also while a server joins and another one leaves.
#
# A line of figures a case. `shares` are against 4:2:1 (1 is exact), of what was begun after the first second
# and before the last call was sent: then nothing starts up and nothing runs dry. `gap_ms` is the median time
# between two beginnings: of a busy server with one handler it is what the handler takes on this machine.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

seconds=10 short=300 turns=2000
((QUICK)) && seconds=6 short=150 turns=1000
# The fastest handler's milliseconds, and what three servers do in a second: with a handler each, with
# eight each, and with 32 calls in flight.
unit=10
one=$((1750 / unit)) eight=$((8 * 1750 / unit)) flight=$((32 * 7000 / 12 / unit))
"$CASTNET" lab up --hosts 5 --json >/dev/null || { fail "no lab"; finish; }

# configure CASE BALANCE: a case has a folder and a cluster of its own, so that several run at the same time.
configure() {
    mkdir -p "$WORK/$1"
    cat >"$WORK/$1.yaml" <<YAML
node:      {interface: eth0, cluster: $1}
policies:  [{match: "**", carrier: persistent, balance: $2}]
YAML
}
# serve CASE SERVER HOST OPTIONS…: in the background.
serve() {
    start "$3" "$1/$2" "$CASTNET" serve "$WORK/$1.yaml" work --name "$2" --json --log-level error "${@:4}"
}
ready() {
    eventually 20 "[ \$(grep -ls '\"ready\"' $WORK/$1/s? | wc -l) = $2 ]" || fail "$1: the servers are not up"
}
# call CASE CLIENT SERVERS OPTIONS…: in the background, once so many servers are known.
call() {
    start h5 "$1/$2" "$CASTNET" send "$WORK/$1.yaml" work --kind call --name "$2" --members "$3" --json \
        --log-level error "${@:4}"
}
handled() { grep -c '"message"' "$WORK/$1/$2"; }

# messages CASE: a line for each that came to a handler, and when.
messages() {
    jq -cn 'inputs | select(.event == "message")
        | {server: (input_filename | split("/") | last), from, seq, sent_s: (.at_s - .latency_s), at_s}' \
        "$WORK/$1"/s?
}
# sums CASE: what its clients were told.
sums() {
    jq -cn '[inputs | select(.event == "summary")]
        | {sent: (map(.sent) | add), accepted: (map(.accepted) | add), failed: (map(.failed) | add),
           per_s: (map(.messages_per_s) | add // 0 | floor), slowest_s: (map(.latency_s.max) | max)}' \
        "$WORK/$1"/c?
}

# capacity CASE CLIENTS CONCURRENCY PER_S [HALF]: all clients together, with 32 calls in flight, make as many
# calls as come to `seconds` at PER_S a second; with HALF they are paced to that.
capacity() {
    local name=$1 clients=$2 pids=() options=() servers client
    configure "$name" capacity
    [ -z "${5:-}" ] || options=(--rate "$(jq -n "$4 / $clients")")
    serve "$name" s1 h1 --work ${unit}ms --concurrency "$3"
    serve "$name" s2 h2 --work $((2 * unit))ms --concurrency "$3"
    serve "$name" s3 h3 --work $((4 * unit))ms --concurrency "$3"
    ready "$name" 3
    servers=("${pids[@]}")
    pids=()
    for ((client = 1; client <= clients; client++)); do
        call "$name" "c$client" 3 --in-flight $((32 / clients)) --size 64 \
            --count $(($4 * seconds / clients)) "${options[@]}"
    done
    wait "${pids[@]}"
    stop "${servers[@]}"
    jq -cn --arg case "$name" --argjson clients "$clients" --argjson concurrency "$3" \
        --argjson sums "$(sums "$name")" --slurpfile all <(messages "$name") '
        def counts: group_by(.server) | map({key: .[0].server, value: length}) | from_entries;
        def against($of; $all; $part): ($of // 0) / ($all * $part / 7) * 1000 | round / 1000;
        def shares: counts as $of | if length == 0 then null else
            {s1: against($of.s1; length; 4), s2: against($of.s2; length; 2), s3: against($of.s3; length; 1)}
            end;
        def gap: map(.at_s) | sort | [.[1:], .[:-1]] | transpose | map(.[0] - .[1]) | sort
            | .[length / 2 | floor] // 0 | . * 10000 | round / 10;
        ($all | map(.at_s) | min) as $first | ($all | map(.sent_s) | max) as $last
        | [$all[] | select(.at_s >= $first + 1 and .at_s <= $last)]
        | {case: $case, clients: $clients, concurrency: $concurrency} + $sums
        + {handled: ($all | length), load_s: ($last - $first), counted: counts, shares: shares,
           gap_ms: (group_by(.server) | map({key: .[0].server, value: gap}) | from_entries),
           shares_by_client: (group_by(.from) | map({key: .[0].from, value: shares}) | from_entries)}' \
        >"$WORK/$name.line"
}
# judge_capacity CASE CLIENTS PER_S WHAT
judge_capacity() {
    local line calls=$(($3 * seconds / $2 * $2))
    line=$(cat "$WORK/$1.line")
    echo "$line"
    check_json "$4: more than five seconds of it, every call accepted and handled once" "$line" \
        ".load_s >= 5 and .sent == $calls and .accepted == $calls and .handled == $calls"
    check_json "$4: shares within 10 %" "$line" '.shares | length == 3 and all(. >= 0.9 and . <= 1.1)'
}

# What handles a call: its input says how long it takes. Of `first` it is only one, whoever comes first.
cat >"$WORK/handle" <<'SH'
read -r input
case $input in
    slow) sleep 10 ;;
    first) if mkdir "$1" 2>/dev/null; then sleep 10; else sleep 0.02; fi ;;
    *) sleep 0.02 ;;
esac
SH
# job CASE: three servers with one handler each, one of which gets a job of ten seconds.
job() {
    local name=$1 pids=() servers number
    configure "$name" capacity
    for number in 1 2 3; do
        serve "$name" s$number h$number --concurrency 1 --reply "exec:sh $WORK/handle $WORK/$name.first"
    done
    ready "$name" 3
    servers=("${pids[@]}")
    pids=()
    if [ "$name" = job-own ]; then
        # The job is one of the client's own: it takes one of the places in flight.
        call "$name" c1 3 --data first --count $((short + 1)) --in-flight 9 --list
    else
        # The job is another client's: this one cannot know of it before a server tells.
        call "$name" c2 3 --data slow --list
        eventually 20 "cat $WORK/$name/s? | grep -q '\"message\"'" || fail "$name: the job is not begun"
        sleep 0.1
        call "$name" c1 3 --data short --count "$short" --in-flight 8 --list
    fi
    wait "${pids[@]}"
    stop "${servers[@]}"
    jq -cn --arg case "$name" '
        def of: group_by(.outcome) | map({key: .[0].outcome, value: length}) | from_entries;
        [inputs | select(.event == "sent" or .event == "outcome")
            | {key: "\(input_filename) \(.id)", outcome, latency_s, at_s}]
        | group_by(.key) | map((map(select(.outcome))[0] // {}) + {at_s: (map(.at_s | values) | max)})
        | sort_by(.latency_s) | last as $job | .[:-1]
        | {case: $case, job: ($job | {outcome, latency_s}), short: length, short_by_outcome: of,
           short_max_s: (map(.latency_s) | max), short_median_s: .[length / 2 | floor].latency_s,
           short_above_2_s: (map(select(.latency_s > 2)) | length),
           while_it_ran: (map(select(.at_s < $job.at_s)) | length)}
        ' "$WORK/$name"/c? >"$WORK/$name.line"
}
# judge_job CASE WHAT
judge_job() {
    local line
    line=$(cat "$WORK/$1.line")
    echo "$line"
    check_json "$2: it takes its ten seconds and is accepted" "$line" \
        '.job.outcome == "accepted" and .job.latency_s >= 10'
    check_json "$2: $short short calls while it runs, none takes two seconds" "$line" \
        ".short == $short and .short_by_outcome == {accepted: $short} and .while_it_ran == $short
            and .short_max_s <= 2"
}

# by_client CASE: counts of each client's calls by server; `ever` is the largest difference between s1 to s4
# after any of its calls, in the order in which they were sent; `since_joined` are counts from its first call
# to s5 on.
by_client() {
    messages "$1" | jq -cs '
        def counts: group_by(.server) | map({key: .[0].server, value: length}) | from_entries;
        [group_by(.from)[] | sort_by(.seq) | (map(select(.server == "s5").seq) | min) as $joined
        | {client: .[0].from, counts: counts,
           ever: (reduce .[] as $call ({of: {s1: 0, s2: 0, s3: 0, s4: 0}, worst: 0};
               .of[$call.server] += 1 | .worst = ([.worst, ([.of[]] | max - min)] | max)) | .worst),
           since_joined: (map(select($joined and .seq >= $joined)) | counts)}]'
}

undisturbed() {
    local pids=() servers number line
    configure turns round-robin
    for number in 1 2 3 4; do serve turns s$number h$number; done
    ready turns 4
    servers=("${pids[@]}")
    pids=()
    for number in 1 2 3; do call turns c$number 4 --in-flight 16 --size 64 --count "$turns"; done
    wait "${pids[@]}"
    stop "${servers[@]}"
    line=$(jq -cn --argjson sums "$(sums turns)" --argjson clients "$(by_client turns)" \
        '{case: "turns"} + $sums + {clients: ($clients | map(del(.since_joined)))}')
    echo "$line"
    check_json "round-robin: every call accepted and handled once" "$line" \
        ".accepted == 3 * $turns and ([.clients[].counts[]] | add) == 3 * $turns"
    check_json "round-robin: a difference of one at most for every client, at any time" "$line" \
        '(.clients | length == 3) and (.clients | all((.counts | length == 4)
            and ([.counts[]] | max - min) <= 1 and .ever <= 1))'
}

# s5 joins and s2 leaves under a load that always has calls at every server.
changing() {
    local pids=() servers clients number line code
    configure changes round-robin
    for number in 1 2 3 4; do serve changes s$number h$number --work 50ms; done
    ready changes 4
    servers=("${pids[@]}")
    pids=()
    for number in 1 2 3; do call changes c$number 4 --in-flight 16 --size 64 --count "$turns"; done
    clients=("${pids[@]}")
    pids=()
    eventually 20 "[ \$(handled changes s1) -ge $((3 * turns / 16)) ]" || fail "nothing is called"
    serve changes s5 h1 --work 50ms
    ready changes 5
    eventually 10 "[ \$(handled changes s5) -ge $((turns / 20)) ]" || fail "s5 gets nothing"
    kill -TERM "$(jq -r 'select(.event == "ready").pid' "$WORK/changes/s2")"
    wait "${servers[1]}"
    code=$?
    wait "${clients[@]}"
    stop "${servers[0]}" "${servers[@]:2}" "${pids[@]}"
    line=$(jq -cn --argjson sums "$(sums changes)" --argjson clients "$(by_client changes)" \
        --slurpfile all <(messages changes) --argjson code "$code" '
        ([$all[] | select(.server == "s2").at_s] | max) as $left
        | {case: "changes"} + $sums + {handled: ($all | length), leaver_exit: $code,
           after_it_left: ([$all[] | select(.at_s > $left)] | length),
           clients: ($clients | map(del(.ever)))}')
    echo "$line"
    check_json "a member joins, one leaves: nothing fails, every call is handled once" "$line" \
        ".sent == 3 * $turns and .accepted == 3 * $turns and .handled == 3 * $turns"
    check_json "a member joins, one leaves: who leaves ends well, and the calls go on without it" "$line" \
        ".leaver_exit == 0 and .after_it_left >= $((turns / 2))
            and (.clients | all(.counts.s2 > 0 and .counts.s2 < .counts.s1 - 1))"
    check_json "a member joins, one leaves: who stays differs by one at most for every client" "$line" \
        '(.clients | length == 3) and (.clients | all(.counts | [.s1, .s3, .s4] | all(. > 0)
            and max - min <= 1))'
    check_json "a member joins, one leaves: who joins has its turn like the others from its first call on" \
        "$line" '.clients | all(.since_joined | [.s1, .s3, .s4, .s5] | all(. != null) and max - min <= 1)'
}

# The handlers only sleep: cases that are little work for this machine run at the same time.
running=()
capacity one 1 1 $one & running+=($!)
capacity one-two 2 1 $one & running+=($!)
capacity half-one 1 1 $((one / 2)) half & running+=($!)
wait "${running[@]}"
running=()
capacity many 1 64 $flight & running+=($!)
capacity half-eight 1 8 $((eight / 2)) half & running+=($!)
wait "${running[@]}"
running=()
capacity many-two 2 64 $flight & running+=($!)
# Not with one handler: whoever comes while the other client has it goes elsewhere, as it should.
capacity half-two 2 8 $((eight / 2)) half & running+=($!)
wait "${running[@]}"
judge_capacity one 1 $one "capacity, one handler at a time"
judge_capacity one-two 2 $one "capacity, one handler at a time, two clients"
judge_capacity half-one 1 $((one / 2)) "half of the capacity, one handler at a time"
judge_capacity many 1 $flight "capacity, many handlers"
judge_capacity half-eight 1 $((eight / 2)) "half of the capacity, eight handlers at a time"
judge_capacity half-two 2 $((eight / 2)) "half of the capacity, eight handlers at a time, two clients"
judge_capacity many-two 2 $flight "capacity, many handlers, two clients"

running=()
job job-own & running+=($!)
job job-other & running+=($!)
wait "${running[@]}"
judge_job job-own "a job of ten seconds of the same client"
judge_job job-other "a job of ten seconds of another client"

undisturbed
changing
"$CASTNET" lab down
finish

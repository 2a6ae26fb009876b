#!/usr/bin/env bash
# Every outcome, provoked through the command: by what handlers answer, by servers that are killed, slow,
# missing or late, by deadlines and by limits. For calls and for casts settled when received and when
# processed, over both carriers. Each message ends in exactly one outcome, the lines, the summary and the exit
# code agree, and what is said not to have been executed was not. Then random schedules of servers, senders
# and faults with the same rules: outcomes.py; and thousands more in virtual time, in a release build.
#
# A case has a client, up to three servers and a cluster of its own; several go on at a time. SEED in the
# environment makes other schedules, ONLY runs one of them and no table.
source "$(dirname "$0")/lib.sh" "$@"
if ! command -v python3 >/dev/null; then
    skip "all: no python3"
    finish
fi
in_lab

schedules=200 cells=5 workers=4
((QUICK)) && schedules=10
topics=({persistent,ephemeral}.{call,received,processed})

# The cases below work on the variables of `case_in`: the case's name, its hosts and the processes in `pids`.

# configure OF POLICY LIMITS: a file for clients or servers; POLICY is what the rules say besides the carrier.
configure() {
    printf '%s\n' "node: {interface: eth0, cluster: $name}" "policies:" \
        "  - {match: \"persistent.*\", carrier: persistent${2:+, $2}}" \
        "  - {match: \"ephemeral.*\", carrier: ephemeral${2:+, $2}}" \
        "limits: {${3:-connections: 512}}" >"$WORK/$name.$1.yaml"
}
# serve WHO HOST OPTION…: a server of all the topics.
serve() {
    start "$2" "$name.$1" "$CASTNET" serve "$WORK/$name.server.yaml" "${topics[@]}" --name "$1" \
        --json --log-level error "${@:3}"
    eventually 20 "grep -q '\"ready\"' $WORK/$name.$1" || fail "$name: $1 is not up"
}
pid_of() { jq -rn 'first(inputs | select(.event == "ready").pid)' "$WORK/$name.$1"; }
# handled WHO…: messages that came to a handler, by topic.
handled() {
    local who files=()
    for who in "$@"; do files+=("$WORK/$name.$who"); done
    grep -h '"event":"message"' "${files[@]}" | grep '}$' |
        jq -cn 'reduce inputs.topic as $topic ({}; .[$topic] += 1)'
}
handled_in_all() {
    local who count=0
    for who in "$@"; do ((count += $(grep -c '"event":"message"' "$WORK/$name.$who"))); done
    echo "$count"
}

# send TOPIC COUNT OPTION…: to its end; its figures go to a file of their own.
send() {
    local topic=$1 count=$2 how=(--kind cast --receipt "${1#*.}") code
    [ "${topic#*.}" = call ] && how=(--kind call)
    on "$client" "$CASTNET" send "$WORK/$name.client.yaml" "$topic" "${how[@]}" --name "client-$topic" \
        --count "$count" --in-flight "$count" --size 32 --list --json --log-level error "${@:3}" \
        >"$WORK/$name.sent.$topic" 2>"$WORK/$name.sent.$topic.log"
    code=$?
    grep '}$' "$WORK/$name.sent.$topic" | jq -cn --arg topic "$topic" --argjson count "$count" \
        --argjson code "$code" '
        def round3: if . == null then null else . * 1000 | round / 1000 end;
        [inputs] as $lines | [$lines[] | select(.event == "outcome")] as $ends
        | [$lines[] | select(.event == "sent")] as $sent | ($sent | map(.id)) as $ids
        | [$lines[] | select(.event == "summary")] as $sums
        | ($ends | group_by(.outcome) | map({key: .[0].outcome, value: length}) | from_entries) as $by
        | {topic: $topic, kind: ($topic | split(".")[1]), by_outcome: $by,
           from_s: ([$ends[].latency_s] | min | round3), to_s: ([$ends[].latency_s] | max | round3),
           begun_at: (([$sent[].at_s] | min // 0) - ([$ends[].latency_s] | max // 0)),
           exit: $code, counters: ($sums[0].counters // {} | with_entries(select(.key | test("^limit")))),
           why: ([$ends[] | select(.outcome != "accepted").why][0]),
           agrees: (($ends | length) == $count and ($ids | unique | length) == $count
               and ($ends | map(.id) | sort) == ($ids | sort) and ($sums | length) == 1
               and $sums[0].by_outcome == $by and $sums[0].sent == $count and ([$by[]] | add) == $count
               and $code == (if $by.accepted == $count then 0 else 1 end)
               and (($by | keys) - ["accepted", "rejected", "released", "expired", "unroutable", "lost"])
                   == [])}' >"$WORK/$name.figures.$topic"
}
# all COUNT OPTION…: so many messages to each topic, at the same time.
all() {
    local topic running=()
    for topic in "${topics[@]}"; do
        send "$topic" "$@" &
        running+=($!)
    done
    wait "${running[@]}"
}
# sums WHAT: the figures of the last `all`, as `line`: of the sends that end with the handler's answer, and of
# the casts that end before it. Each message ended once, and everybody agrees on how.
sums() {
    local topic files=()
    for topic in "${topics[@]}"; do files+=("$WORK/$name.figures.$topic"); done
    line=$(jq -cs --arg case "$1" '{case: $case, handled: map(select(.kind != "received")),
        early: map(select(.kind == "received"))}' "${files[@]}")
    echo "$line"
    check_json "$1: each ends in one outcome; lines, summary and exit code agree" "$line" \
        ".handled + .early | length == ${#topics[@]} and all(.agrees)"
}
# expect WHAT EXPRESSION: of `line`.
expect() { check_json "$1" "$line" "$2"; }
# told WHO: the counters of a server as it told them last.
told() { grep '"counters"' "$WORK/$name.$1" | grep '}$' | tail -n 1 | jq -c .counters; }

# What handlers answer. A cast settled when received is accepted, whatever its handler says later.

# replies MODE OUTCOME
replies() {
    configure client
    configure server
    serve server "$one" --reply "$1"
    all 5 --deadline 10s
    stop "${pids[@]}"
    sums "serve --reply $1"
    expect "$1: calls and processed casts are $2" ".handled | all(.by_outcome == {$2: 5})"
    expect "$1: received casts are accepted" '.early | all(.by_outcome == {accepted: 5})'
    check_json "$1: each comes to a handler once" "$(handled server)" 'length == 6 and all(. == 5)'
}
case_echo() { replies echo accepted; }
case_none() { replies none accepted; }
case_reject() { replies reject rejected; }
case_release() { replies release released; }
case_exec_cat() { replies exec:cat accepted; }
case_exec_65() { replies 'exec:exit 65' rejected; }
case_exec_75() { replies 'exec:exit 75' released; }

# releases RETRY: one server releases what another would take.
releases() {
    configure client "retry: $1"
    configure server
    serve refusing "$one" --reply release
    serve taking "$two" --reply echo
    all 6 --deadline 10s --members 2
    stop "${pids[@]}"
    sums "one of two releases, retry: $1"
    check "retry: $1: messages came to the one that releases" '[ "$(handled_in_all refusing)" -gt 0 ]'
}
case_release_ends() {
    releases none
    expect "retry: none: what one releases stays released" \
        '.handled | all(.by_outcome == {accepted: 3, released: 3})'
}
case_release_goes_on() {
    releases other-member
    expect "retry: other-member: what one releases the other takes" \
        '.handled + .early | all(.by_outcome == {accepted: 6})'
    check_json "retry: other-member: the other executes each once" "$(handled taking)" \
        'with_entries(select(.key | endswith("received") | not)) | length == 4 and all(. == 6)'
}

# Deadlines.

case_slow() {
    configure client
    configure server
    serve server "$one" --reply echo --work 2s
    all 5 --deadline 500ms
    stop "${pids[@]}"
    sums "work that takes longer than the deadline"
    expect "slow: calls and processed casts expire, within 0.2 s of the deadline" \
        '.handled | all(.by_outcome == {expired: 5} and .from_s >= 0.5 and .to_s <= 0.7)'
    expect "slow: received casts are accepted" '.early | all(.by_outcome == {accepted: 5})'
}
# Of four the second is begun before the deadline, the others are not.
case_queue() {
    configure client
    configure server
    serve server "$one" --reply echo --work 1s --concurrency 1
    all 4 --deadline 1500ms
    # For the second of a received cast, which nobody waits for, and the look at what is behind it.
    sleep 1.5
    stop "${pids[@]}"
    sums "deadlines that pass in the server's queue"
    local expired
    expired=$(jq -cn --argjson handled "$(handled server)" --argjson told "$(told server)" \
        '{handled: $handled, expired: $told["messages.expired-in-queue"]}')
    echo "$expired"
    expect "queue: one is accepted, three expire within 0.2 s of the deadline" \
        '.handled | all(.by_outcome == {accepted: 1, expired: 3} and .to_s <= 1.7)'
    expect "queue: received casts are accepted" '.early | all(.by_outcome == {accepted: 4})'
    check_json "queue: what expired there is not executed" "$expired" \
        '.handled | length == 6 and all(. == 2)'
    check_json "queue: and counted" "$expired" '.expired == 12'
}

# Nobody serves.

case_nobody() {
    local code
    configure client
    all 3 --deadline 1s --mandatory
    sums "nobody serves, --mandatory"
    expect "nobody, --mandatory: unroutable at once" \
        '.handled + .early | all(.by_outcome == {unroutable: 3} and .to_s < 0.2)'
    configure client "mandatory: true"
    all 3 --deadline 1s
    sums "nobody serves, mandatory: true"
    expect "nobody, mandatory: true: unroutable at once" \
        '.handled + .early | all(.by_outcome == {unroutable: 3} and .to_s < 0.2)'
    configure client
    all 3 --deadline 1s
    sums "nobody serves"
    expect "nobody: expired at the deadline" \
        '.handled + .early | all(.by_outcome == {expired: 3} and .from_s >= 1 and .to_s <= 1.2)'
    on "$client" "$CASTNET" send "$WORK/$name.client.yaml" persistent.call --kind call --members 1 \
        --members-timeout 500ms --json >"$WORK/$name.members" 2>/dev/null
    code=$?
    check "nobody: --members not in time exits with 69" "[ $code = 69 ]"
}
case_nobody_backlog() {
    configure client "backlog: 10"
    all 50 --deadline 1s
    sums "nobody serves, backlog: 10"
    expect "nobody, backlog: 10: all 50 wait and expire at the deadline, none is released" \
        '.handled + .early | all(.by_outcome == {expired: 50} and .from_s >= 1 and .to_s <= 1.2)'
}
case_late() {
    local running begun
    configure client
    configure server
    all 5 --deadline 8s &
    running=$!
    sleep 1.5
    serve server "$one" --reply echo
    wait $running
    stop "${pids[@]}"
    sums "a server that comes before the deadline"
    begun=$(jq 'select(.event == "ready").at_s' "$WORK/$name.server" | head -n 1)
    expect "late: all were sent before it was there, and are accepted" \
        ".handled + .early | all(.by_outcome == {accepted: 5} and .begun_at < $begun)"
}

# Servers killed while their handlers run.

case_killed() {
    local running
    configure client
    configure server
    serve server "$one" --reply 'exec:sleep 20'
    all 3 --deadline 10s &
    running=$!
    eventually 15 '[ "$(handled_in_all server)" = 18 ]'
    kill -KILL "$(pid_of server)"
    wait $running
    stop "${pids[@]}"
    sums "killed while a handler runs"
    expect "killed: calls and processed casts are lost, before the deadline" \
        '.handled | all(.by_outcome == {lost: 3} and .to_s < 10)'
    expect "killed: received casts are accepted" '.early | all(.by_outcome == {accepted: 3})'
}
# killed_one_of_two POLICY: of four messages two go to the one that is killed.
killed_one_of_two() {
    local running
    configure client "$1"
    configure server
    serve victim "$one" --reply 'exec:sleep 20'
    serve other "$two" --reply echo
    all 4 --deadline 10s --members 2 &
    running=$!
    eventually 15 '[ "$(handled_in_all victim)" = 12 ]'
    kill -KILL "$(pid_of victim)"
    wait $running
    stop "${pids[@]}"
    sums "one of two is killed, $1"
    check_json "one of two is killed, $1: it had begun two of each" "$(handled victim)" \
        'length == 6 and all(. == 2)'
}
case_handed_over() {
    killed_one_of_two "retry: other-member, idempotent: true"
    expect "idempotent: true: the other takes over, all are accepted" \
        '.handled + .early | all(.by_outcome == {accepted: 4})'
    check_json "idempotent: true: the other executes each once" "$(handled other)" \
        'with_entries(select(.key | endswith("received") | not)) | length == 4 and all(. == 4)'
}
case_not_handed_over() {
    killed_one_of_two "retry: other-member, idempotent: false"
    expect "idempotent: false: what was begun is lost" \
        '.handled | all(.by_outcome == {accepted: 2, lost: 2})'
    check_json "idempotent: false: nothing comes to the other" "$(handled other)" \
        'length == 6 and all(. == 2)'
}
# poison TOPIC: its handler kills the server it runs in.
poison() {
    local topics=("$1") alive=0 who
    configure client "retry: other-member, idempotent: true, attempts: 2"
    configure server
    serve first "$one" --reply 'exec:kill -9 $PPID'
    serve second "$two" --reply 'exec:kill -9 $PPID'
    serve third "$three" --reply 'exec:kill -9 $PPID'
    all 1 --deadline 10s --members 3
    # A third attempt would be seen by now.
    sleep 0.5
    for who in first second third; do kill -0 "$(pid_of "$who")" 2>/dev/null && ((alive += 1)); done
    sums "poison over $1"
    expect "poison over $1: lost" '.handled + .early | all(.by_outcome == {lost: 1} and .to_s < 10)'
    check "poison over $1: two attempts, and one server is left" \
        "[ $(handled_in_all first second third) = 2 ] && [ $alive = 1 ]"
    stop "${pids[@]}"
}
case_poison_call() { poison persistent.call; }
case_poison_cast() { poison persistent.processed; }
case_poison_short_call() { poison ephemeral.call; }
case_poison_short_cast() { poison ephemeral.processed; }

# Limits: who sends too much waits.

# too_many WHAT OPTION…: fifty at a time, to a server that answers none of them.
too_many() {
    serve server "$one" --reply echo --work 10min --stats 200ms "${@:2}"
    all 50 --deadline 3s
    kill -KILL "$(pid_of server)"
    stop "${pids[@]}"
    sums "$1"
    expect "$1: calls and processed casts wait and expire, none is released" \
        '.handled | all(.by_outcome == {expired: 50} and .from_s >= 3 and .to_s <= 3.2)'
}
case_pending_calls() {
    local what="limits: {pending-calls: 10}"
    configure client "" "pending-calls: 10"
    configure server
    too_many "$what"
    expect "$what: received casts are accepted" '.early | all(.by_outcome == {accepted: 50})'
    expect "$what: the limit is counted" '.handled | all(.counters["limit.pending-calls.hit"] > 0)'
}
case_backlog() {
    local what="backlog: 10 of the sender"
    configure client "backlog: 10"
    configure server
    too_many "$what"
    expect "$what: received casts are accepted" '.early | all(.by_outcome == {accepted: 50})'
    expect "$what: the limit is counted" '.handled | all(.counters["limit.backlog.hit"] > 0)'
}
# At most one is being handled and ten wait; the other casts find no room before their deadline.
case_backlog_of_server() {
    local what="backlog: 10 of the server"
    configure client
    configure server "backlog: 10"
    too_many "$what" --concurrency 1
    expect "$what: received casts that find room are accepted, the others expire" \
        '.early | all((.by_outcome | keys == ["accepted", "expired"] and .accepted <= 11) and .to_s <= 3.2)'
    check_json "$what: the limit is counted" "$(told server)" '.["limit.backlog.hit"] > 0'
}
case_room_again() {
    configure client "backlog: 10" "pending-calls: 10"
    configure server "backlog: 10"
    serve server "$one" --reply echo --work 20ms --concurrency 4
    all 50 --deadline 10s
    stop "${pids[@]}"
    sums "room comes again"
    expect "room comes again: who waited goes on, all are accepted" \
        '.handled + .early | all(.by_outcome == {accepted: 50})'
    check_json "room comes again: each is executed once" "$(handled server)" 'length == 6 and all(. == 50)'
}

# case_in SLOT CASE: on the slot's own hosts; what it says goes to a file.
case_in() {
    local name=$2 client="h$((4 * $1 - 3))" one="h$((4 * $1 - 2))" two="h$((4 * $1 - 1))" three="h$((4 * $1))"
    local pids=() line
    "case_$name" >"$WORK/$name.said" 2>"$WORK/$name.err"
}
# worker SLOT: takes the next case until none is left.
worker() {
    local number
    for number in "${!cases[@]}"; do
        mkdir "$WORK/taken.$number" 2>/dev/null && case_in "$1" "${cases[number]}"
    done
}
# The long ones first.
cases=(pending_calls backlog backlog_of_server queue nobody killed handed_over not_handed_over poison_call
    poison_cast poison_short_call poison_short_cast late slow nobody_backlog room_again release_ends
    release_goes_on echo none reject release exec_cat exec_65 exec_75)
table() {
    local slot name stalls working=()
    "$CASTNET" lab up --hosts $((4 * workers)) --json >/dev/null || { fail "no lab"; return; }
    python3 "$ROOT/Tests/Acceptance/outcomes.py" stalls "$WORK/stalled" &
    stalls=$!
    for ((slot = 1; slot <= workers; slot++)); do
        worker "$slot" &
        working+=($!)
    done
    wait "${working[@]}"
    stop $stalls
    for name in "${cases[@]}"; do
        cat "$WORK/$name.said"
        grep -q '^pass\|^fail' "$WORK/$name.said" || fail "$name: $(tail -n 3 "$WORK/$name.err")"
        # Cases count in shells of their own.
        ((passed += $(grep -c '^pass ' "$WORK/$name.said")))
        ((failed += $(grep -c '^fail ' "$WORK/$name.said")))
    done
    # How long a process waited for the processor: on a busy machine that is late, too.
    emit_json cases="${#cases[@]}" stalled_s="$(cat "$WORK/stalled")"
    "$CASTNET" lab down
}

# chance: what no schedule of the random ones may break.
chance() {
    local sum covered='[.by_outcome[] | select(. > 0)] | length >= 3'
    ((QUICK)) ||
        covered='.by_outcome | [.accepted, .rejected, .released, .expired, .unroutable, .lost] | all(. > 0)'
    mkdir "$WORK/chance"
    python3 "$ROOT/Tests/Acceptance/outcomes.py" schedules --seed "${SEED:-$RANDOM}" --count "$schedules" \
        --cells "$cells" --work "$WORK/chance" ${ONLY:+--only "$ONLY"} >"$WORK/chance.lines"
    cat "$WORK/chance.lines"
    sum=$(tail -n 1 "$WORK/chance.lines")
    [ -n "${ONLY:-}" ] && schedules=1 covered=true
    check_json "$schedules random schedules break no rule" "$sum" \
        ".schedules == $schedules and .failed == 0 and .messages > 0 and .executed > 0"
    check_json "the random schedules come to all kinds of ends" "$sum" "$covered"
}

# simulate: nodes with their links, queues and handlers over simulated connections.
simulate() {
    local seeds=5000 sum
    ((QUICK)) && seeds=300
    build_test_program Simulator
    sum=$("$PROGRAM" unicast-seeds --count "$seeds" | tee /dev/stderr | grep '"what"')
    echo "$sum"
    check_json "$seeds simulated schedules break no rule" "$sum" ".seeds == $seeds and .failed == 0"
    check_json "the simulated schedules come to all kinds of ends" "$sum" \
        '.outcomes | [.accepted, .rejected, .released, .expired, .unroutable, .lost] | all(. > 0)'
}

if [ -z "${ONLY:-}" ]; then
    simulate
    table
fi
chance
finish

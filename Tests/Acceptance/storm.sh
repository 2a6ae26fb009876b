#!/usr/bin/env bash
# A server that may have 256 descriptors, its limits left at more, under a storm of 5,000 clients at 2,000 a
# second: silent, a byte a second, huge lengths, garbage, half-closes and resets at random points. From the
# host of the one good caller first, then from three others. The topic that is called 2,000 times a second
# keeps 80 %, newcomers get in, the admin page answers; with nothing left but silent connections, more than
# there are descriptors, the server costs next to nothing; in the end it has the descriptors it had before.
#
# A line of figures a pass. Rates are of calls accepted in a second, CPU is in cores, ratios are against the
# pace; `calm` is before the storm, `connects` while connections come, `storm` until the last has gone.
# SEED in the environment makes another storm of the same kind.
source "$(dirname "$0")/lib.sh" "$@"
if ! command -v python3 >/dev/null || ! command -v prlimit >/dev/null; then
    skip "all: no python3 or no prlimit"
    finish
fi
in_lab

clients=5000 rate=2000 hold=10
# A second and a half of connects, so that a newcomer can come in the middle of them.
((QUICK)) && clients=1500 rate=1000 hold=7
pace=2000 nofile=256 calm=2
# Silent connections by themselves: more than the descriptors, from hosts enough that no address reaches its
# own limit first, and for less than the five seconds in which a hello is due.
hanging=1000 hang=4
others=(h3 h4 h5)
cat >"$WORK/storm.yaml" <<'YAML'
node:      {interface: eth0, cluster: storm}
policies:  [{match: "**", carrier: persistent}]
YAML
"$CASTNET" lab up --hosts 5 --json >"$WORK/hosts" || { fail "no lab"; finish; }
address=$(jq -r 'select(.host == "h1").address' "$WORK/hosts")

# flood NAME COUNT RATE HOLD HOSTS OPTIONS…: in the background, the load shared out among the hosts, each
# with a line in $WORK/NAME.HOST; processes in `flooding`.
flood() {
    local name=$1 count=$2 per_s=$3 hold=$4 hosts host pids=() seed=0
    read -ra hosts <<<"$5"
    shift 5
    for host in "${hosts[@]}"; do
        ((seed += 1))
        start "$host" "$name.$host" python3 "$ROOT/Tests/Acceptance/storm.py" flood "$address:$port" \
            --count $((count / ${#hosts[@]})) --rate $((per_s / ${#hosts[@]})) --hold "$hold" \
            --seed $((${SEED:-1} * 1000 + seed)) "$@"
    done
    flooding=("${pids[@]}")
}
# flooded NAME: what became of that flood, of all its hosts together.
flooded() {
    cat $(ls "$WORK/$1".h? | grep -v 'log$') | jq -cs '
        def sum(f): map(f) | add;
        {hosts: length, attempted: sum(.attempted), connected: sum(.connected), failed: sum(.failed),
         greeted: sum(.greeted), closed_by_server: sum(.closed_by_server), left: sum(.left),
         rate: (sum(.rate) | floor), begun_at: (map(.begun_at) | min),
         connects_ended_at: (map(.connects_ended_at) | max), ended_at: (map(.ended_at) | max),
         by: (map(.by | to_entries) | add | group_by(.key) | map({key: .[0].key, value: (map(.value)
             | {attempted: sum(.attempted), connected: sum(.connected), greeted: sum(.greeted),
                closed: sum(.closed), reset: sum(.reset), left: sum(.left), finished: sum(.finished),
                lives_max_s: (map(.lives_max_s) | max)})}) | from_entries)}'
}
# newcomer NAME: 200 calls from a node that the server has not met, from the host that has the good caller.
newcomer() {
    echo "$EPOCHREALTIME" >"$WORK/$1.begun"
    # Where nobody answers, it need not wait for the deadlines of all of them.
    on h2 timeout --kill-after=5 20 "$CASTNET" send "$WORK/storm.yaml" hot --kind call --count 200 \
        --deadline 10s --name "$1" --list --json --log-level error >"$WORK/$1" 2>"$WORK/$1.log"
}
# came NAME: when it began, and when its first and its last call were accepted, in seconds since `begun`.
came() {
    jq -cn --argjson since "$begun" --argjson began "$(cat "$WORK/$1.begun")" --slurpfile lines "$WORK/$1" '
        def since: if . == null then null else (. - $since) * 1000 | round / 1000 end;
        INDEX($lines[] | select(.outcome == "accepted"); .id) as $accepted
        | [$lines[] | select(.event == "sent" and $accepted[.id]).at_s] as $at
        | {began_s: ($began | since), first_s: ($at | min | since), last_s: ($at | max | since),
           calls: ($lines | map(select(.event == "summary"))[0].by_outcome)}'
}
# ask_page: a line about one request for the admin page.
ask_page() {
    local begun=$EPOCHREALTIME ok=false
    timeout 5 "$CASTNET" status --admin "$admin" --json 2>/dev/null |
        jq -e '.node == "server" and (.limits | length > 0)' >/dev/null 2>&1 && ok=true
    jq -cn "{ok: $ok, seconds: ($EPOCHREALTIME - $begun)}"
}
# ask_pages: again and again until the file `storming` has gone.
ask_pages() {
    while [ -e "$WORK/storming" ]; do
        ask_page
        sleep 0.3
    done
}
# accepted FROM TO: calls of the good caller that were accepted between two moments, and in the worst of the
# whole seconds between them. A call's `sent` line is told when it has ended.
accepted() {
    awk -F'\t' -v from="$1" -v to="$2" '
        $1 == "sent" { sent[$2] = $3; if ($3 > last) last = $3 }
        $1 == "outcome" && $4 == "accepted" { at[$2] = sent[$2] }
        END {
            seconds = int(to - from)
            for (id in at) {
                when = at[id]
                if (when < from || when >= to) continue
                all++
                bins[int(when - from)]++
            }
            worst = seconds ? bins[0] + 0 : -1
            for (i = 0; i < seconds; i++) if (bins[i] + 0 < worst) worst = bins[i] + 0
            covered = (last >= to) ? "true" : "false"
            printf "{\"per_s\":%.0f,\"worst_second\":%d,\"seconds\":%.2f,\"covered\":%s}\n",
                all / (to - from), worst, to - from, covered
        }' "$WORK/calls"
}

# descriptors PID: how many it has; none when it is gone.
descriptors() { ls "/proc/$1/fd" 2>/dev/null | wc -l; }
# lives_until PID SECONDS COMMAND: as `eventually`, but for no longer than the process lives.
lives_until() { eventually "$2" "! kill -0 $1 2>/dev/null || { $3; }"; }

# storm NAME HOSTS: a pass with a server, a caller and a storm of its own, from hosts (one word of shell).
storm() {
    local pass=$1 hosts=$2 pids=() server watch caller first second asking pid port admin base after code now
    # Enough for the slow start of a generator, too: calls are to go on until the storm is over.
    local count=$((pace * (calm + clients / rate + hold + 6))) open storm_line hang_line line limit summary
    local begun connected ended
    rm -f "$WORK"/*.h? "$WORK"/*.admin
    admin=unix:$WORK/server.admin
    start h1 server prlimit --nofile=$nofile "$CASTNET" serve "$WORK/storm.yaml" hot --name server \
        --reply echo --json --set "admin.listen=$admin"
    server=${pids[-1]}
    eventually 20 "grep -q '\"ready\"' $WORK/server" || { fail "$pass: the server is not up"; return; }
    pid=$(jq -r 'select(.event == "ready").pid' "$WORK/server")
    port=$(jq -r 'select(.event == "ready").listen | split(":") | last' "$WORK/server")
    limit=$(awk '/Max open files/ {print $4, $5}' "/proc/$pid/limits")
    start h1 watch python3 "$ROOT/Tests/Acceptance/storm.py" watch --pid "$pid" --port "$port"
    watch=${pids[-1]}
    # Its link is to stay until the descriptors are back; should it not hear that it is to stop while it
    # stays, it ends by itself, and still tells its sum.
    KILL_AFTER=40 start h2 hot "$CASTNET" send "$WORK/storm.yaml" hot --kind call --rate $pace \
        --count "$count" --in-flight 256 --deadline 5s --name client --list --stay 24s --json \
        --log-level error
    caller=${pids[-1]}
    eventually 20 "[ \$(grep -c '\"outcome\"' $WORK/hot) -ge $pace ]" || fail "$pass: nothing is called"
    # What the page needs for the first time is there from here on.
    "$CASTNET" status --admin "$admin" --json >/dev/null
    sleep $calm
    base=$(descriptors "$pid")
    now=$EPOCHREALTIME

    flood storm "$clients" "$rate" "$hold" "$hosts"
    touch "$WORK/storming"
    ask_pages >"$WORK/pages" &
    asking=$!
    # In the middle of the connects, and later, while what is left of them hangs.
    lives_until "$pid" 10 "[ \$(descriptors $pid) -ge $((base + 16)) ]"
    sleep "$(jq -n "$clients / $rate / 2")"
    newcomer first &
    first=$!
    sleep $((clients / rate + 2))
    newcomer second &
    second=$!
    wait "${flooding[@]}"
    rm "$WORK/storming"
    wait "$first" "$second" "$asking"
    storm_line=$(flooded storm)
    # The caller ends, its link stays.
    lives_until "$pid" 20 "[ \$(grep -c '\"outcome\"' $WORK/hot) -ge $count ]" ||
        fail "$pass: calls are under way"

    flood hang "$hanging" "$rate" "$hang" "${others[*]}" --only silent
    # Once more, when the time in which its cost is taken is over and all still hang.
    sleep $((hang - 1)).5
    ask_page >>"$WORK/pages"
    wait "${flooding[@]}"
    hang_line=$(flooded hang)
    after=$SECONDS
    lives_until "$pid" 15 "[ \$(descriptors $pid) -le $base ]"
    after=$((SECONDS - after))
    # Descriptors that come back once more would be seen in this second.
    sleep 1
    open=$(descriptors "$pid")
    timeout 10 "$CASTNET" status --admin "$admin" --json >"$WORK/status"
    stop "$watch" "$caller"
    if kill -0 "$pid" 2>/dev/null; then
        pass "$pass: the server lives"
        kill -TERM "$pid"
    else
        fail "$pass: the server died: $(tail -n 20 "$WORK/server.log" | cut -c 1-500)"
    fi
    wait "$server"
    code=$?
    summary=$(grep '"event":"summary"' "$WORK/server" | tail -n 1)

    jq -r 'select(.id) | [.event, .id, .at_s // "", .outcome // ""] | @tsv' "$WORK/hot" >"$WORK/calls"
    # A storm that is over early, because the server died, is not a shorter one.
    read -r begun connected ended < <(jq -r "[.ended_at, .begun_at + $clients / $rate + $hold] as \$ends
        | \"\(.begun_at) \(.connects_ended_at) \(\$ends | max)\"" <<<"$storm_line")
    line=$(jq -cn --arg pass "$pass" --argjson pace $pace --argjson base "$base" --argjson open "$open" \
        --argjson recovered_s "$after" --arg limit "$limit" --argjson code "$code" \
        --argjson storm "$storm_line" --argjson hang "$hang_line" --argjson emfile \
        "$(grep -ciE 'too many open files|EMFILE' "$WORK/server.log")" \
        --argjson log_lines "$(wc -l <"$WORK/server.log")" --argjson calm_from "$now" --argjson calm $calm \
        --argjson rate_calm "$(accepted "$(jq -n "$now - $calm")" "$now")" \
        --argjson rate_connects "$(accepted "$begun" "$connected")" \
        --argjson rate_storm "$(accepted "$begun" "$ended")" --slurpfile watch "$WORK/watch" \
        --slurpfile pages "$WORK/pages" --slurpfile status "$WORK/status" \
        --argjson summary "${summary:-null}" \
        --slurpfile hot <(grep '"summary"' "$WORK/hot") --argjson first "$(came first)" \
        --argjson second "$(came second)" '
        def round3: if . == null then null else . * 1000 | round / 1000 end;
        def within($from; $to): [$watch[] | select(.at >= $from and .at <= $to)];
        def cores($from; $to): within($from; $to)
            | if length < 2 then null else (last.cpu_s - first.cpu_s) / (last.at - first.at) | round3 end;
        ($hang.connects_ended_at + 0.75) as $idle
        | [within($idle; $idle + 2)[] | select(.connections)] as $hung
        | {pass: $pass, ratio_connects: ($rate_connects.per_s / $pace | round3),
           ratio_storm: ($rate_storm.per_s / $pace | round3), calm_per_s: $rate_calm.per_s,
           connects_per_s: $rate_connects.per_s, storm_per_s: $rate_storm.per_s,
           worst_second: $rate_storm.worst_second, covered: $rate_storm.covered,
           storm_s: $rate_storm.seconds, calls: $hot[0].by_outcome,
           connections_opened: $hot[0].connections_opened, newcomers: [$first, $second],
           connects_s: ($storm.connects_ended_at - $storm.begun_at | round3),
           cpu_calm: cores($calm_from - $calm; $calm_from),
           cpu_connects: cores($storm.begun_at; $storm.connects_ended_at),
           cpu_storm: cores($storm.begun_at; $storm.ended_at), cpu_hang: cores($idle; $idle + 2),
           hang: {attempted: $hang.attempted, connected: $hang.connected, greeted: $hang.greeted,
                  samples: ($hung | length), connections_min: ($hung | map(.connections) | min),
                  waiting_max: ($hung | map(.waiting) | max),
                  descriptors: (within($idle; $idle + 2) | map(.descriptors) | max)},
           nofile: $limit, descriptors_before: $base,
           descriptors_max: ($watch | map(.descriptors) | max), descriptors_after: $open,
           recovered_s: $recovered_s, threads_max: ($watch | map(.threads) | max),
           rss_max_bytes: ($watch | map(.rss_max_bytes) | max),
           pages: {asked: ($pages | length), answered: ($pages | map(select(.ok)) | length),
                   slowest_s: ($pages | map(.seconds) | max | round3)},
           links_after: ($status[0].limits // [] | map(select(.name == "connections")) | .[0].used),
           counters: ($status[0].counters // {} | with_entries(select(.value > 0
               and (.key | test("^(link[.]|limit[.])"))))),
           emfile_lines: $emfile, log_lines: $log_lines, exit: $code, summary: ($summary != null),
           storm: ($storm | del(.begun_at, .connects_ended_at, .ended_at))}')
    echo "$line"
    # What a failed check shows of it.
    local figures
    figures=$(jq -c 'del(.storm, .counters)' <<<"$line")

    # That there was a storm at all, and what it met.
    check_json "$pass: every client of the storm was begun, none faster than asked for" "$line" \
        ".storm.hosts == $(wc -w <<<"$hosts") and .storm.attempted >= $clients - 3
            and .storm.rate >= 0.5 * $rate and .storm.rate <= 1.05 * $rate"
    check_json "$pass: half of them stood, of each behaviour, and the server greeted some of each" "$line" \
        '.storm.connected >= 0.5 * .storm.attempted and (.storm.by | length == 6)
            and (.storm.by | all(.connected >= 0.4 * .attempted and .greeted > 0))'
    check_json "$pass: the server had $nofile descriptors, and needed many of them" "$figures" \
        ".nofile == \"$nofile $nofile\" and .descriptors_max >= .descriptors_before + 64"
    check_json "$pass: the good caller's pace, before the storm" "$figures" ".calm_per_s >= 0.95 * $pace"

    check_json "$pass: the hot topic keeps 80 % while connections come, and until they are gone" "$figures" \
        '.covered and .ratio_connects >= 0.8 and .ratio_storm >= 0.8'
    check_json "$pass: over the link that it had before" "$figures" '.connections_opened == 1'
    check_json "$pass: newcomers come in the storm and get in before it is over, with all their calls" \
        "$figures" '(.newcomers | map(.calls) == [{accepted: 200}, {accepted: 200}])
            and .newcomers[0].began_s < .connects_s
            and .storm_s as $over | .newcomers | all(.began_s > 0 and .first_s < $over)'
    check_json "$pass: the admin page answers every time, within two seconds" "$figures" \
        '.pages.asked >= 5 and .pages.answered == .pages.asked and .pages.slowest_s < 2'
    check_json "$pass: silent connections hang, and cost less than a tenth of a core" "$figures" \
        '.hang.connected >= 0.5 * .hang.attempted and .hang.samples >= 4 and .hang.connections_min >= 32
            and .cpu_hang != null and .cpu_hang < 0.1'
    check_json "$pass: the log is not flooded" "$figures" '.emfile_lines <= 10 and .log_lines <= 500'
    check_json "$pass: less than 256 MB" "$figures" '.rss_max_bytes > 0 and .rss_max_bytes < 256e6'
    check_json "$pass: descriptors are back within 15 s, and links" "$figures" \
        '.descriptors_after > 0 and .descriptors_after <= .descriptors_before and .links_after == 1'
    check_json "$pass: the server ends with its summary" "$figures" '.exit == 0 and .summary'
}

if ((QUICK)); then
    storm "from everywhere" "h2 ${others[*]}"
else
    storm "from the caller's host" h2
    storm "from other hosts" "${others[*]}"
fi
"$CASTNET" lab down
finish

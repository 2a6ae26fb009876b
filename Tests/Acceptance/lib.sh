# Sourced by the acceptance scripts beside it: arguments, the release build, checks and their sum.
#
#     source "$(dirname "$0")/lib.sh" "$@"
#     in_lab                              # goes on inside a private lab with its own network
#     up=$("$CASTNET" lab up --hosts 4 --json)
#     check "four hosts" '[ "$(wc -l <<<"$up")" = 4 ]'
#     check_json "all accepted" "$result" '.accepted == 1000'
#     finish
#
# A script prints `pass …`, `fail …` or `skip …` a check, and ends with `N passed, N failed, N skipped`.
# CASTNET names the executable under test; unset, a release build is made once into the ordinary .build.
# CASTNET_BUILT=1 says that the release build and the debug one, tests and all, are there: a look at one makes
# the other stale, and that costs more than most scripts.

set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ARGUMENTS=("$@")

# 1 with --quick: the same checks, less load.
QUICK=0
for argument in "$@"; do
    case $argument in
        --quick) QUICK=1 ;;
        *) echo "usage: $0 [--quick]" >&2; exit 64 ;;
    esac
done

built() { [ "${CASTNET_BUILT:-}" = 1 ] || (cd "$ROOT" && swift build "$@"); }
if [ -z "${CASTNET:-}" ]; then
    built -c release --product castnet >&2 || exit 70
    CASTNET=$(cd "$ROOT" && swift build -c release --show-bin-path)/castnet
fi
export CASTNET

passed=0 failed=0 skipped=0
WORK=$(mktemp -d "${TMPDIR:-/tmp}/castnet-acceptance.XXXXXX")
# A command in the background that is killed before it has begun is still this shell, trap and all.
trap '[ "$BASHPID" != "$$" ] || rm -rf "$WORK"' EXIT

pass() { ((passed += 1)); echo "pass $*"; }
fail() { ((failed += 1)); echo "fail $*"; }
skip() { ((skipped += 1)); echo "skip $*"; }

# check NAME COMMAND: COMMAND is one word of shell, true or not.
check() { if eval "$2"; then pass "$1"; else fail "$1: $2"; fi; }

# check_json NAME JSON EXPRESSION: a jq expression that must be true of one JSON value.
# Nothing is not a value, though jq may end well on it.
check_json() {
    if [ -n "$2" ] && jq -e "$3" <<<"$2" >/dev/null 2>&1; then
        pass "$1"
    else
        fail "$1: $3 of $(head -c 2000 <<<"$2")"
    fi
}

# eventually SECONDS COMMAND: whether COMMAND, one word of shell, becomes true in time.
eventually() {
    local end=$((SECONDS + $1))
    until eval "$2"; do
        ((SECONDS < end)) || return 1
        sleep 0.05
    done
}

# emit_json KEY=VALUE…: one line of JSON; numbers, true, false and null stay what they are.
emit_json() {
    local pair arguments=()
    for pair in "$@"; do arguments+=(--arg "${pair%%=*}" "${pair#*=}"); done
    # Not map_values: with it jq 1.6 loses what `try` gives.
    jq -cn "${arguments[@]}" '$ARGS.named | to_entries
        | map({key, value: (.value as $text | try ($text | fromjson) catch $text)}) | from_entries'
}

# in_lab: runs the rest of the script in a private lab; where there is none the script is skipped.
in_lab() {
    [ "${CASTNET_LAB:-}" = 1 ] && return
    if ! why=$("$CASTNET" lab run --hosts 0 -- true 2>&1); then
        skip "all: $why"
        finish
    fi
    rm -rf "$WORK"
    exec "$CASTNET" lab run --hosts 0 -- bash "$0" "${ARGUMENTS[@]}"
}

# finish: the sum, and the exit code that goes with it.
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    exit $((failed > 0))
}

# build_test_program NAME [CONFIGURATION]: a program of Tests/, of a release build or of another, in PROGRAM.
# Outside the lab, which has no network.
build_test_program() {
    local configuration=${2:-release}
    if ! built -c "$configuration" --product "$1" >"$WORK/build" 2>&1; then
        tail -n 20 "$WORK/build"
        fail "$1 is not built"
        finish
    fi
    PROGRAM=$(cd "$ROOT" && swift build -c "$configuration" --show-bin-path)/$1
}

# on HOST COMMAND…: a command on a host of the lab, for a minute at most.
on() { timeout --kill-after=5 60 "$CASTNET" lab exec "$1" -- "${@:2}"; }
# start HOST OUTPUT COMMAND…: in the background; its process is added to `pids`. It is asked to end after two
# minutes, and ended KILL_AFTER seconds later.
start() {
    timeout --kill-after="${KILL_AFTER:-5}" 120 "$CASTNET" lab exec "$1" -- "${@:3}" \
        >"$WORK/$2" 2>"$WORK/$2.log" &
    pids+=($!)
}
stop() {
    kill -TERM "$@" 2>/dev/null
    wait "$@" 2>/dev/null
}

# fanout_config [LINE]: what the next two use; LINE is one more of the configuration.
fanout_config() {
    cat >"$WORK/fanout.yaml" <<YAML
node:      {interface: eth0, cluster: fanout}
channels:  {bulk: {group: 239.192.9.7, port: 7660}}
policies:
  - {match: "bench", kinds: [fanout], carrier: multicast, channel: bulk, fallback: none}
  - {match: "**", carrier: persistent}
${1:-}
YAML
}
# listeners FIRST LAST HOSTS: listeners with these numbers, on h2 and the hosts after it in turn.
listeners() {
    local number
    for ((number = $1; number <= $2; number++)); do
        start "h$((2 + (number - 1) % $3))" "m$number" "$CASTNET" bench listen "$WORK/fanout.yaml" bench \
            --name "m$number" --json --log-level error
    done
}
# fan_out OPTIONS…: a line of figures.
fan_out() {
    on h1 "$CASTNET" bench fanout "$WORK/fanout.yaml" bench --name sender --json --log-level error "$@"
}

#!/usr/bin/env bash
# Builds api, scheduler, agent and the README's code, runs them on loopback for a bounded time and checks what
# they say: calls by `persistent`, fanouts by `multicast`, casts by `ephemeral`. Exit 0 only if all is right.
set -uo pipefail
cd "$(dirname "$0")"

agents=3 machines=5
config=castnet.yaml
root=$(cd ../.. && pwd)
build=(swift build --scratch-path "$root/.build/examples")
"${build[@]}" >&2 || exit 1
bin=$("${build[@]}" --show-bin-path) || exit 1

work=$(mktemp -d "${TMPDIR:-/tmp}/castnet-control-plane.XXXXXX")
pids=()
stop() { for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null; done; }
trap 'stop; wait; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# start NAME COMMAND…: runs a node for at most a minute; what it says goes to a file of its name.
start() {
    local name=$1
    shift
    NODE_NAME=$name timeout --kill-after=5 60 "$@" >"$work/$name" 2>"$work/$name.log" &
    pids+=($!)
}

# The README's code is a node that talks to itself.
NODE_NAME=snippet timeout --kill-after=5 20 "$bin/snippet" >"$work/snippet" 2>"$work/snippet.log"
snippet_code=$?

# Any order will do; the agents come last here.
start scheduler "$bin/scheduler" "$config" "$agents"
for number in $(seq "$agents"); do start "agent-$number" "$bin/agent" "$config"; done

passed=0 failed=0
# expect COUNT FILE PATTERN: so many lines of FILE match.
expect() {
    local count
    count=$(grep -cE -- "$3" "$work/$2")
    if [ "$count" = "$1" ]; then
        ((passed += 1))
    else
        ((failed += 1))
        echo "FAILED: $count lines instead of $1 in what $2 said match: $3"
    fi
}

NODE_NAME=api timeout --kill-after=5 40 "$bin/api" "$config" "$machines" >"$work/api" 2>"$work/api.log"
code=$?
# The nodes say goodbye and end by themselves.
stop
ended=0
for pid in "${pids[@]}"; do wait "$pid" || ended=$?; done
pids=()

cat "$work/api"
expect "$machines" api "^vm-[0-9]+: $agents agents told, $agents answered .*by persistent"
expect $((agents * machines)) scheduler '^agent-[0-9]+ knows vm-[0-9]+, by ephemeral$'
for number in $(seq "$agents"); do expect "$machines" "agent-$number" '^vm-[0-9]+ came by multicast$'; done
expect 1 snippet '^where to\? local '
expect 1 snippet '^snippet.* local$'
expect 1 snippet '^agents\.l2 '
if ((snippet_code != 0 || code != 0 || ended != 0)); then
    ((failed += 1))
    echo "FAILED: the snippet ended with $snippet_code, the api with $code, another node with $ended"
fi
if ((failed > 0)); then
    for file in "$work"/*; do echo "-- ${file##*/}"; tail -n 20 "$file"; done
fi
echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))

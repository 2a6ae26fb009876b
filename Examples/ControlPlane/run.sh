#!/usr/bin/env bash
# Builds the three services and runs them on loopback: one scheduler, two agents, one api.
set -uo pipefail
cd "$(dirname "$0")"

scratch=../../.build/examples
swift build --scratch-path "$scratch" >&2 || exit 1
bin=$(swift build --scratch-path "$scratch" --show-bin-path)
work=$(mktemp -d "${TMPDIR:-/tmp}/control-plane.XXXXXX")
trap 'exec 9>&-; rm -rf "$work"' EXIT

mkfifo "$work/hold"
SERVICE=scheduler timeout 60 "$bin/Scheduler" castnet.yaml <"$work/hold" >"$work/scheduler" &
scheduler=$!
# The scheduler runs until this end of its standard input closes.
exec 9>"$work/hold"
agents=()
for number in 1 2; do
    SERVICE=agent$number timeout 60 "$bin/Agent" castnet.yaml >"$work/agent$number" &
    agents+=($!)
done
for _ in $(seq 200); do
    grep -q ready "$work/scheduler" && break
    sleep 0.1
done
SERVICE=api timeout 60 "$bin/Api" castnet.yaml >"$work/api"
code=$?
wait "${agents[@]}"
exec 9>&-
wait "$scheduler"
cat "$work/api" "$work"/agent[12]

[ $code = 0 ] && [ "$(grep -c 'by persistent' "$work/api")" = 20 ] &&
    grep -q '^agent1: heard 20 placements, 10 of them mine$' "$work/agent1" &&
    grep -q '^agent2: heard 20 placements, 10 of them mine$' "$work/agent2"

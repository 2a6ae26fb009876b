#!/usr/bin/env bash
# Every broken configuration is named with line and column; explain and send agree (the property test over 50
# tables is ExplainAgreesTests; here the command itself).
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"

files=0 problems=0
for file in "$ROOT"/Tests/CastnetTests/Fixtures/broken/*.yaml; do
    lines=$("$CASTNET" check "$file" --json 2>/dev/null)
    code=$?
    name=$(basename "$file")
    ((files += 1, problems += $(wc -l <<<"$lines")))
    if [ $code = 65 ] && jq -es 'length > 0 and all(.line >= 1 and .column >= 1 and (.found | length > 0))' \
        >/dev/null 2>&1 <<<"$lines"; then
        ((passed += 1))
    else
        fail "$name: exit $code, $lines"
    fi
done
check "at least 25 broken configurations" "[ $files -ge 25 ]"

config=$ROOT/Examples/loopback/castnet.yaml
check_json "a good one" "$("$CASTNET" check "$config" --json)" '.ok'
for case in "scheduler call persistent" "agents.l2 fanout multicast" "agents.l2 call ephemeral" \
    "x cast ephemeral"; do
    read -r topic kind carrier <<<"$case"
    check_json "explain $topic $kind" "$("$CASTNET" explain "$config" "$topic" --kind "$kind" --json)" \
        ".carrier == \"$carrier\""
done
emit_json broken=$files problems=$problems
finish

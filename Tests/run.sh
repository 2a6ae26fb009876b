#!/usr/bin/env bash
# Installs what is missing and runs every test there is. Each step is bounded in time, a failure does not stop
# the next step, and the last line is `N passed, N failed, N skipped`; the exit code is 0 only if nothing
# failed.
set -uo pipefail
cd "$(dirname "$0")/.."

packages=(
    libpgm-dev libhiredis-dev redis-server pkg-config iproute2 iptables nftables ethtool util-linux procps
    tcpdump perl-base jq python3 libzmq5 valgrind binutils
)
# Everything together ends before this, so that a hanging step cannot take the whole run with it. This and
# the limits of the steps leave room for a machine three times as slow as the usual one (1,500 s in all).
seconds_max=5100

logs=$(mktemp -d "${TMPDIR:-/tmp}/castnet-tests.XXXXXX")
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 skipped=0
failures=() skips=()

log_of() { echo "$logs/$(tr -c 'A-Za-z0-9\n' '-' <<<"$1").log"; }

# limited LIMIT COMMAND…: runs a command within LIMIT seconds and what is left of the whole run.
limited() {
    local limit=$1 left=$((seconds_max - SECONDS))
    shift
    ((left < limit)) && limit=$left
    if ((limit <= 0)); then
        echo "no time left: the whole run is bounded by $seconds_max s"
        return 124
    fi
    # `timeout` gives the command a process group of its own, which a Ctrl-C does not reach by itself.
    timeout --kill-after=20 "$limit" "$@" &
    child=$!
    wait "$child"
}
child=
trap '[ -n "$child" ] && kill "$child" 2>/dev/null; exit 130' INT TERM

# report NAME CODE SECONDS: one line for a step, and if it failed what its log says of that.
report() {
    local name=$1 code=$2 took=$3
    if ((code == 0)); then
        printf '== %-46s ok      %4d s\n' "$name" "$took"
        return
    fi
    printf '== %-46s FAILED  %4d s (exit %d%s)\n' "$name" "$took" "$code" \
        "$( ((code == 124 || code == 137)) && echo ', out of time')"
    # A failed test's own words, wherever in the log they are; without any, the end.
    { grep -A3 ' recorded an issue ' "$(log_of "$name")" | head -n 80 | grep . ||
        grep -A30 'WARNING: ThreadSanitizer' "$(log_of "$name")" | head -n 120 | cut -c1-180 | grep . ||
        tail -n 60 "$(log_of "$name")"; } | sed 's/^/   /'
}

# step NAME LIMIT COMMAND…: a step that counts as one test.
step() {
    local name=$1 limit=$2 start=$SECONDS code=0
    shift 2
    limited "$limit" "$@" >"$(log_of "$name")" 2>&1 || code=$?
    report "$name" "$code" $((SECONDS - start))
    count_one "$name" "$code"
    return "$code"
}

count_one() {
    if (($2 == 0)); then
        ((passed += 1))
    else
        ((failed += 1))
        failures+=("$1")
    fi
}

skip() {
    printf '== %-46s skipped\n' "$1"
    ((skipped += 1))
    skips+=("$1: $2")
}

# tests NAME LIMIT COMMAND…: a step of Swift Testing; COMMAND gets --xunit-output added and each test counts.
tests() {
    local name=$1 limit=$2 start=$SECONDS code=0 counts
    shift 2
    local report_file="$logs/xunit.xml" results="$logs/xunit-swift-testing.xml"
    rm -f "$report_file" "$results"
    limited "$limit" "$@" --xunit-output "$report_file" >"$(log_of "$name")" 2>&1 || code=$?
    report "$name" "$code" $((SECONDS - start))
    counts=$(count_results "$results")
    read -r step_passed step_failed step_skipped <<<"$counts"
    # A crash or a race report fails the step though every test that ended had passed.
    if ((code != 0 && step_failed == 0)); then step_failed=1; fi
    if ((code == 0 && step_passed + step_failed + step_skipped == 0)); then
        echo "   no test ran"
        step_failed=1
    fi
    printf '   %d passed, %d failed, %d skipped\n' "$step_passed" "$step_failed" "$step_skipped"
    ((passed += step_passed, failed += step_failed, skipped += step_skipped))
    if ((step_failed > 0)); then failures+=("$name"); fi
    if ((step_skipped > 0)); then skips+=("$(skip_reasons "$name" "$results")"); fi
}

# Counts the test cases of an xunit file: `PASSED FAILED SKIPPED`.
count_results() {
    [ -s "$1" ] || { echo 0 0 0; return; }
    awk '
        function close_case() { if (bad) f++; else if (left) s++; else if (open) p++; open = bad = left = 0 }
        /<testcase / { close_case(); open = 1 }
        /<failure/ { bad = 1 }
        /<skipped/ { left = 1 }
        END { close_case(); print p + 0, f + 0, s + 0 }' "$1"
}

skip_reasons() {
    sed -n 's/.*<skipped>\(.*\)<\/skipped>.*/\1/p' "$2" | sort | uniq -c |
        sed "s/^ *\([0-9]*\) /$1: \1 × /; s/&quot;/\"/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g"
}

install_packages() {
    if ! command -v dpkg-query >/dev/null; then
        echo "not a Debian: install what ${packages[*]} hold here"
        return 0
    fi
    local missing=() package sudo=()
    for package in "${packages[@]}"; do
        [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" = "install ok installed" ] ||
            missing+=("$package")
    done
    ((${#missing[@]} == 0)) && return 0
    echo "installing ${missing[*]}"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || { echo "needs root to install ${missing[*]}"; return 1; }
        sudo=(sudo -n)
    fi
    local install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get install -y --no-install-recommends "${missing[@]}")
    "${install[@]}" || { "${sudo[@]}" apt-get update && "${install[@]}"; }
}

links_libpgm_dynamically() {
    ldd "$1" | tee /dev/stderr | grep -q 'libpgm.*=> /'
}

# script NAME LIMIT COMMAND…: a script that counts its own checks.
script() {
    local name=$1 limit=$2 start=$SECONDS code=0
    shift 2
    limited "$limit" bash "$@" >"$(log_of "$name")" 2>&1 || code=$?
    count_script "$name" "$code" $((SECONDS - start))
}

# calm_scripts SCRIPT…: those that wait more than they work, three at a time.
calm_scripts() {
    local name
    export -f limited log_of
    export logs seconds_max started=$((EPOCHSECONDS - SECONDS))
    printf '%s\n' "$@" | xargs -P 3 -I {} bash -c '
        SECONDS=$((EPOCHSECONDS - started)) start=$EPOCHSECONDS code=0
        limited 600 bash "$1" --quick >"$(log_of "$1")" 2>&1 || code=$?
        echo "$code $((EPOCHSECONDS - start))" >"$(log_of "$1").end"' - {} &
    child=$!
    wait "$child"
    for name in "$@"; do count_script "$name" $(cat "$(log_of "$name").end" 2>/dev/null || echo 1 0); done
}

# count_script NAME CODE SECONDS: the script's own last line `N passed, N failed, N skipped` counts; without
# one its exit code does.
count_script() {
    local name=$1 code=$2 last
    report "$@"
    last=$(tail -n 1 "$(log_of "$name")")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        ((passed += BASH_REMATCH[1], failed += BASH_REMATCH[2], skipped += BASH_REMATCH[3]))
        if ((BASH_REMATCH[3] > 0)); then
            skips+=("$name: $(grep -h '^skip' "$(log_of "$name")" | sort -u | tr '\n' ';')")
        fi
        if ((code != 0 && BASH_REMATCH[2] == 0)); then ((failed += 1)); fi
        if ((code != 0)); then failures+=("$name"); fi
    else
        count_one "$name" "$code"
    fi
}

export -f links_libpgm_dynamically

start=$SECONDS code=0
install_packages >"$(log_of packages)" 2>&1 </dev/null || code=$?
report packages "$code" $((SECONDS - start))
count_one packages "$code"

step "format" 120 swift format lint --strict -r \
    Sources Tests $(find Examples -name '*.swift' -not -path '*/.build/*' 2>/dev/null) Package.swift

# Without libpgm and hiredis first: one scratch path serves both, and what follows finds the full build.
if step "build without traits" 900 swift build --build-tests --disable-default-traits; then
    # What has nothing to do with them is the same in both builds.
    tests "tests without traits" 600 swift test --skip-build --disable-default-traits \
        --skip '^(LabTests|CastnetMulticastTests|CastnetCoreTests|SimulationTests)\.'
fi

# Tests that put packets on a network run in a private lab, so that no packet leaves it.
networked='^(LabTests|CastnetMulticastTests)\.'
if step "build" 900 swift build --build-tests; then
    castnet=$(swift build --show-bin-path)/castnet
    tests "tests" 600 swift test --skip-build --skip "$networked"
    if "$castnet" lab run --hosts 0 -- true 2>"$logs/lab"; then
        tests "tests in a private lab" 600 \
            "$castnet" lab run --hosts 0 -- swift test --skip-build --filter "$networked"
    else
        echo "   $(cat "$logs/lab")"
        tests "tests without a lab" 600 swift test --skip-build --filter "$networked"
    fi
    step "libpgm is linked dynamically" 20 bash -c 'links_libpgm_dynamically "$1"' - "$castnet"
fi

sanitized=(--sanitize=thread --scratch-path .build/tsan)
if step "build for the thread sanitizer" 900 swift build --build-tests "${sanitized[@]}"; then
    # CastnetCore is values without threads; those are above it.
    export TSAN_OPTIONS="exitcode=66 suppressions=$PWD/Tests/tsan.supp" CASTNET_TEST_PATIENCE=10
    tests "what has threads under the thread sanitizer" 900 swift test --skip-build "${sanitized[@]}" \
        --filter "^CastnetTests\." --skip "^CastnetTests\.WorkTests"
    # The load of these would starve the others: links with nothing wrong would be taken for dead.
    for suite in CastnetTests.WorkTests CastnetRedisTests; do
        tests "$suite under the thread sanitizer" 300 swift test --skip-build "${sanitized[@]}" \
            --filter "^${suite/./\\.}"
    done
    unset TSAN_OPTIONS CASTNET_TEST_PATIENCE
fi

for example in Examples/*/run.sh; do
    [ -e "$example" ] && script "$example" 600 "$example"
done

acceptance=() calm=()
for candidate in Tests/Acceptance/*.sh; do
    [ -e "$candidate" ] && [ "${candidate##*/}" != lib.sh ] || continue
    if grep -q '^# Calm: ' "$candidate"; then calm+=("$candidate"); else acceptance+=("$candidate"); fi
done
if ((${#acceptance[@]} > 0)); then
    if step "release build" 900 swift build -c release; then
        CASTNET=$(swift build -c release --show-bin-path)/castnet
        export CASTNET CASTNET_BUILT=1
        script "Tests/Performance/counts.sh" 600 Tests/Performance/counts.sh
        for candidate in "${acceptance[@]}"; do script "$candidate" 600 "$candidate" --quick; done
        ((${#calm[@]} > 0)) && calm_scripts "${calm[@]}"
    else
        skip "acceptance" "no release build"
    fi
fi

echo
for line in "${skips[@]}"; do printf 'skipped: %s\n' "$line"; done
for line in "${failures[@]}"; do printf 'failed: %s\n' "$line"; done
printf 'whole run: %d s\n' "$SECONDS"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))

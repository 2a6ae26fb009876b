#!/usr/bin/env bash
# The directories of whole groups in virtual time, each node losing one datagram in a hundred, each with
# three topics, 64 to 10,000 nodes: what the group sends when nothing happens, how soon a newcomer is seen,
# by all and by those who call its topics, how soon a node is missed that vanished without a word, and how
# soon two parts of a group that was cut, in halves and nine to one, are one view again.
# Calm: its time is virtual.
source "$(dirname "$0")/lib.sh" "$@"

sizes=(64 100 1000 10000)
((QUICK)) && sizes=(64 300)
build_test_program Simulator

# group NODES: its lines in $WORK/NODES. The largest does not form by beacons, which the others show: its
# nodes start with a table, as from a seed. Its memory is fetched a little faster from huge pages.
group() {
    local how=() pages=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296
    (($1 >= 10000)) && how=(--acquainted)
    GLIBC_TUNABLES=$pages:glibc.malloc.top_pad=67108864 \
        "$PROGRAM" membership --nodes "$1" "${how[@]}" >"$WORK/$1"
    jq -c . "$WORK/$1"
}
# each NODES WHAT CONDITION DESCRIPTION: of every such line, of which there is one at least.
each() {
    line=$(jq -cs --arg what "$2" 'map(select(.what == $what))' "$WORK/$1")
    check_json "$1 nodes: $4" "$line" "length > 0 and all($3)"
}
for nodes in "${sizes[@]}"; do
    group "$nodes"
    if ((nodes >= 10000)); then
        each "$nodes" meet '.met' "all know all"
    else
        each "$nodes" form '.formed' "all know all"
    fi
    each "$nodes" idle '.packets_per_s > 0 and .packets_per_s <= 500' \
        "at most 500 datagrams a second when idle"
    each "$nodes" idle '.false_deaths == 0 and .one_view' "nobody is given up who lives"
    each "$nodes" join '.seen_by == .of and .p99_s <= 2' "a newcomer is seen within 2 s"
    each "$nodes" join '.["callers_without_after_0.5_s"] == 0' "those who call its topics see it within 0.5 s"
    if ((nodes <= 64)); then
        each "$nodes" crash '.seen_by == .of and .max_s <= 3' "a crash is noticed within 3 s"
    else
        each "$nodes" crash '.seen_by == .of and .max_s <= 3 * .interval_s' \
            "a crash is noticed within three intervals"
    fi
    each "$nodes" cut '.apart' "both sides of a cut give each other up"
    each "$nodes" cut '.healed and .heal_s <= 10 and .heal_peak_packets_per_s <= 5000' \
        "two parts are one view within 10 s and 5,000 datagrams a second"
done
if ((!QUICK)); then
    line=$(jq -cs '{real_s: (map(.real_s) | max), resident_bytes: (map(.resident_bytes // 0) | max),
        bytes_per_node: (map(.resident_bytes_per_node // 0) | max),
        processor_us_per_node_s: (map(.processor_us_per_node_s // 0) | max)}' "$WORK/10000")
    echo "$line"
    check_json "10,000 nodes: at most 12 GiB and ten minutes" "$line" \
        '.resident_bytes > 0 and .resident_bytes <= 12 * 1073741824 and .real_s <= 600'
fi
finish

#!/usr/bin/env bash
# Installs what is missing, builds release and runs the main job: 1,000 calls over one connection, a file and
# 10,000 small messages to six hosts by multicast, casts over connections that close, and the same binary with
# another policy. Exit 0 only if every step passed. Arguments go to `castnet demo` (--json, --keep).
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(libpgm-dev libhiredis-dev pkg-config iproute2 iptables nftables ethtool util-linux procps)
missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" = "install ok installed" ] ||
        missing+=("$package")
done
if ((${#missing[@]} > 0)); then
    sudo=()
    if ((EUID != 0)); then sudo=(sudo); fi
    "${sudo[@]}" apt-get update -qq >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >&2
fi

swift build -c release --product castnet >&2
exec "$(swift build -c release --show-bin-path)/castnet" demo "$@"

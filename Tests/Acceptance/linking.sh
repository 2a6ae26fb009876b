#!/usr/bin/env bash
# The release command links libpgm dynamically and says what it is.
source "$(dirname "$0")/lib.sh" "$@"

libraries=$(ldd "$CASTNET")
check "libpgm is linked dynamically" 'grep -q "libpgm.*=> /" <<<"$libraries"'
version=$("$CASTNET" --version --json)
check_json "the version" "$version" '.castnet and .wire == 1 and (.libpgm | startswith("5."))'
emit_json libpgm="$(awk '/libpgm/ {print $1}' <<<"$libraries")"
finish

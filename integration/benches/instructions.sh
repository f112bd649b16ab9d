#!/usr/bin/env bash
# Instructions that one pass of each part of the hot path takes, counted by callgrind, which does not depend on how busy the machine is.
# Fails when a part takes 5 % more than instructions.txt notes. `--note` notes what is counted.
set -euo pipefail
cd "$(dirname "$0")/../.."

noted=integration/benches/instructions.txt
parts="forwarded cached denied match-10 match-10000"

command -v valgrind >/dev/null || {
    echo "instructions: valgrind is not installed; nothing is counted" >&2
    exit 0
}
binary=$(cargo bench --quiet --package namegate-integration --bench instructions --no-run --message-format json |
    sed -n 's/.*"executable":"\([^"]*\/instructions-[^"]*\)".*/\1/p' | tail -1)

# The start of the process is in both, and falls out of the difference.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

failed=0
[ "${1:-}" != --note ] || : >"$noted"
for part in $parts; do
    now=$((($(count "$part" 3000) - $(count "$part" 1000)) / 2000))
    if [ "${1:-}" = --note ]; then
        echo "$part $now" >>"$noted"
    fi
    before=$(sed -n "s/^$part //p" "$noted")
    printf '%-12s %6d instructions, %6d noted\n' "$part" "$now" "${before:-0}"
    if [ "$((now * 100))" -gt "$((${before:-0} * 105))" ]; then
        echo "instructions: $part takes over 5 % more than noted" >&2
        failed=1
    fi
done
exit "$failed"

#!/bin/sh
# The whole suite: every spec file in a process of its own, as many at a time as
# there are processors (JOBS), for so many seconds at most (LIMIT). Each is shown
# when it has ended, what failed once more at the end, with the sum.
#   LPATH=... CPATH=... RUN="lua5.4" LIMIT=150 suite.sh FILE...
set -u
results=$(mktemp -d) || exit 1
trap 'rm -rf "$results"' EXIT
trap 'exit 130' INT TERM
export results

# Those that take longest begin first, so that nobody waits for them in the end.
first='pool|interleaving|fault|lowmem|ownership|cancel|stream|prompt_terminal'
ordered() {
  printf '%s\n' "$@" | grep -E "/($first)_spec\.lua$"
  printf '%s\n' "$@" | grep -vE "/($first)_spec\.lua$"
}

began=$(date +%s)
ordered "$@" | xargs -P "${JOBS:-$(nproc)}" -I FILE sh -c '
  log=$results/$(echo "$1" | tr / _)
  timeout --foreground -k 10 "$LIMIT" $RUN "$(command -v busted)" --ignore-lua --lpath="$LPATH" --cpath="$CPATH" ${ARGS-} "$1" >"$log" 2>&1
  status=$?
  grep -q "^[0-9]* passed, " "$log" || echo "$1 has ended with status $status" >>"$results/failed"
  [ $status = 0 ] || sed -n "/^failed:$/,\$ s/^  //p" "$log" >>"$results/failed"
  sed "/^$/d; /^[0-9.]* s$/d; /^[0-9]* passed, /d; /^failed:$/,\$d" "$log"
' sh FILE

cat "$results"/*_spec.lua 2>/dev/null | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed\(, \([0-9]*\) skipped\)*.*/\1 \2 \4/p' |
  awk -v crashed="$(grep -c ' has ended with status ' "$results/failed" 2>/dev/null)" '
    { passed += $1; failed += $2; skipped += $3 }
    END { printf "%d passed, %d failed%s\n", passed, failed + crashed, skipped ? ", " skipped " skipped" : "" }
  ' >"$results/sum"
if [ -s "$results/failed" ]; then
  printf '\nfailed:\n'
  sed 's/^/  /' "$results/failed"
fi
printf '\n%d s\n' $(($(date +%s) - began))
cat "$results/sum"
[ ! -s "$results/failed" ]

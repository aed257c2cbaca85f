#!/bin/bash
# Ranks of meshes of 2 x 2 x 2 processes throw, hang, are killed and are stopped at each place of a
# step: all processes end within the stated time, and one line says who, where, and what the others
# wait for.   mpi_rank_failures.sh PROGRAM TESTS FOLDER [full [DEADLINE]]
# PROGRAM: mpi_rank_failure. A selection in which every rank, every place and every way occurs;
# `full`: the product of all three. DEADLINE in milliseconds: longer than a busy machine takes for a
# step.
set -uo pipefail
program=$1 tests=$2 folder=$3 full=${4:-}
rm -rf "$folder" && mkdir -p "$folder" || exit 1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
deadline=${5:-15000}  # milliseconds
# The deadline, the turn of a rank (four seconds at most), two seconds of mpirun's, and
# what a busy machine adds.
most=$((deadline / 1000 + 4 + 2 + 8))
failures=0 cases=0 longest=0
mapfile -t places < <("$program" places)
ways=("${@:6}")
((${#ways[@]} > 0)) || ways=(throw hang kill stop)

run() { # RANK PLACE HOW
  local log=$folder/$2_$3_$1.log begin end code wanted=4 launcher seconds
  [[ $3 != kill ]] || wanted=137
  rm -rf "$folder/run"
  mpirun --oversubscribe -n 8 "$program" "$1" "$2" "$3" "$tests" "$folder/run" $deadline \
    >"$log" 2>&1 &
  launcher=$!
  until grep -q "it happens" "$log" 2>/dev/null; do
    kill -0 $launcher 2>/dev/null || break
    sleep 0.02
  done
  begin=$(date +%s%N)
  (sleep 60 && kill -KILL $launcher) 2>/dev/null &
  local guard=$!
  wait $launcher
  code=$?
  end=$(date +%s%N)
  kill $guard 2>/dev/null
  wait $guard 2>/dev/null
  seconds=$(((end - begin) / 1000000))
  ((seconds > longest)) && longest=$seconds
  cases=$((cases + 1))
  if ((code != wanted)) || ((seconds > most * 1000)) || ! grep -q "it happens" "$log" ||
    ! "$program" check "$1" "$2" "$3" "$log"; then
    echo "FAILED rank $1, $2, $3: exit code $code (not $wanted?) after $seconds ms"
    grep -v '^step' "$log" | tail -5
    failures=$((failures + 1))
  fi
}

for p in "${!places[@]}"; do
  if [[ $full == full ]]; then
    for way in "${ways[@]}"; do
      for rank in 0 1 2 3 4 5 6 7; do run $rank "${places[p]}" "$way"; done
    done
  else
    run $((p * 5 % 8)) "${places[p]}" "${ways[p % 4]}"
  fi
done
# The rank that speaks first when nothing is wrong with it, and that wakes when it is ended.
[[ $full == full ]] || run 0 tensor stop
echo "$cases cases, all ended within $longest ms of the failure, $failures failed"
exit $((failures > 0))

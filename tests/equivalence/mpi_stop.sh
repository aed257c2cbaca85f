#!/bin/bash
# Two processes under mpirun, one of which gets a signal: both stop at the same place, save, and
# mpirun ends with code 75; resumed, the run equals one that nobody stopped. And a process that
# stands still is named after parallel.deadline.   mpi_stop.sh PROGRAM DATA FOLDER
set -uo pipefail
program=$1 data=$2 folder=$3
rm -rf "$folder" && mkdir -p "$folder" && cd "$folder" || exit 1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
failed() {
  echo "FAILED $*"
  cat "$folder"/*.log
  exit 1
}

cat >run.toml <<END
threads = 2
tokenizer = "$data/tiny/tokenizer.json"
[train]
steps = 4
batch = 4
micro_batch = 1
sequence_length = 64
evaluate_every = 2
evaluate_sequences = 4
measure_peak = false
log_every = 1
[model]
layers = 2
hidden = 64
ffn = 128
max_positions = 64
[parallel]
zero_stage = 1
[optim.schedule]
total = 10000
[data]
held_out = 0.5
[[data.sources]]
path = "$data/tiny/persuasion.h5"
END
long=(--set "data.sources=[{path='long.h5'}]" --set train.evaluate_sequences=1000000)
for _ in $(seq 400); do cat "$data/tiny/persuasion.jsonl"; done >long.jsonl
"$program" data pack long.jsonl --tokenizer "$data/tiny/tokenizer.json" --out long.h5 --quiet \
  >pack.log 2>&1 || failed "packing"
rm long.jsonl

launch() { # LOG ARGUMENTS...: sets `launcher` and `ranks`, when the words are there
  local log=$1 words=$2
  shift 2
  mpirun --oversubscribe -n 2 "$program" train run.toml "$@" >"$log" 2>&1 &
  launcher=$!
  until grep -q "$words" "$log"; do
    kill -0 $launcher 2>/dev/null || failed "the run ended before '$words'"
    sleep 0.05
  done
  read -ra ranks < <(cat /proc/$launcher/task/*/children | tr '\n' ' ')
  ((${#ranks[@]} == 2)) || failed "${#ranks[@]} processes instead of 2"
}

# In the middle of a long evaluation, either rank alone.
for victim in 0 1; do
  rm -rf stopped
  launch "stop$victim.log" "step 2/4" --set run.directory=stopped "${long[@]}"
  sleep 0.3
  kill -TERM "${ranks[$victim]}"
  begin=$SECONDS
  wait $launcher
  code=$?
  ((code == 75)) || failed "exit code $code instead of 75"
  ((SECONDS - begin < 20)) || failed "stopping took $((SECONDS - begin)) s"
  (($(wc -l <stopped/metrics.jsonl) == 2)) || failed "not two steps in the metrics"
  ! grep -q validation_loss stopped/metrics.jsonl || failed "half an evaluation was reported"
  [[ -e stopped/checkpoints/step_00000002/manifest.json ]] || failed "no checkpoint of step 2"
done
grep -q "on 2 ranks of 1 thread" stop0.log || failed "two ranks on one machine share its threads"

# However the launcher numbers the processes of a machine.
mpirun --oversubscribe -n 2 bash -c \
  'OMPI_COMM_WORLD_LOCAL_RANK=0 exec "$@"' bash "$program" train run.toml \
  --set run.directory=numbered --set train.steps=1 >numbered.log 2>&1 || failed "numbered"
grep -q "on 2 ranks of 1 thread" numbered.log || failed "threads follow the launcher's numbers"

figures() { grep -o '"\(step\|loss\|gradient_norm\|validation_loss\)":[^,}]*' "$1/metrics.jsonl"; }
long=(--set "data.sources=[{path='long.h5'}]")
for directory in stopped unbroken; do
  mpirun --oversubscribe -n 2 "$program" train run.toml --set run.directory=$directory \
    "${long[@]}" >$directory.log 2>&1 || failed "the run in $directory"
done
[[ $(figures stopped) == "$(figures unbroken)" ]] || failed "the resumed run differs"
(($(figures stopped | grep -c validation_loss) == 2)) || failed "the evaluation was not made again"

# A rank that stands still.
launch still.log "step 2/100000" --set run.directory=still --set train.steps=100000 \
  --set parallel.deadline=2 --set checkpoint.deadline=1
kill -STOP "${ranks[1]}"
wait $launcher
code=$?
kill -KILL "${ranks[1]}" 2>/dev/null
((code == 4)) || failed "exit code $code instead of 4"
grep -q "waited 2000 ms for rank [01]" still.log || failed "the rank is not named"
echo passed

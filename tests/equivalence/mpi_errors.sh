#!/bin/bash
# What is wrong under mpirun is said once, with the exit code that belongs to it, whether all
# processes find it or one; and what is wrong with the numbers is said for people, not for
# programmers.   mpi_errors.sh PROGRAM DATA FOLDER
set -uo pipefail
program=$1 data=$2 folder=$3
rm -rf "$folder" && mkdir -p "$folder" && cd "$folder" || exit 1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
failures=0
cat >run.toml <<END
threads = 1
[train]
steps = 2
batch = 3
micro_batch = 1
sequence_length = 64
evaluate_sequences = 0
measure_peak = false
log_every = 1
[model]
layers = 1
hidden = 32
ffn = 64
max_positions = 64
[optim.schedule]
kind = "constant"
[[data.sources]]
path = "$data/tiny/persuasion.h5"
END

# Runs the program on so many processes; process 1 gets the words of `alone` besides.
launch() { # LOG PROCESSES ARGUMENTS...
  local log=$1 processes=$2
  shift 2
  ALONE="${alone:-}" mpirun --oversubscribe -n "$processes" bash -c \
    'own=(); [[ $OMPI_COMM_WORLD_RANK != 1 || -z $ALONE ]] || read -ra own <<<"$ALONE"
     exec "$@" "${own[@]}"' bash "$program" "$@" >"$log" 2>&1
}
expect() { # NAME PROCESSES CODE WORDS ARGUMENTS...: one message, with these words
  local name=$1 processes=$2 wanted=$3 words=$4 code messages
  shift 4
  launch "$name.log" "$processes" "$@"
  code=$?
  messages=$(grep -c 'error: ' "$name.log")
  ((code == wanted && messages == 1)) && grep 'error: ' "$name.log" | grep -qE "$words" && return
  echo "FAILED $name: exit code $code instead of $wanted, $messages messages instead of one with" \
    "'$words'"
  cat "$name.log"
  failures=$((failures + 1))
}
train=(train run.toml --set)

expect key 3 2 "error: .*stepps" "${train[@]}" train.stepps=3
expect warmup 3 2 "warm-up" "${train[@]}" optim.schedule.warmup_steps=9
expect store 3 3 "there is no " "${train[@]}" "data.sources=[{path='missing.h5'}]"
expect model 2 3 "there is no checkpoint missing" generate --model missing --prompt A

alone="--set train.stepps=3"
expect key_alone 2 2 "error: .*stepps" "${train[@]}" run.directory=alone
alone="--set data.sources=[{path='missing.h5'}]"
expect store_alone 3 3 "error: rank 1: .*missing.h5" "${train[@]}" run.directory=alone
alone=

# Checkpoints that no process can read, and the run as it was.
launch good.log 2 "${train[@]}" run.directory=run || { cat good.log && exit 1; }
truncate -s 100 run/checkpoints/step_*/rank_00000.h5
expect checkpoints 2 3 "none of the checkpoints" "${train[@]}" run.directory=run
(($(grep -c 'has 100 bytes' checkpoints.log) == 1)) || {
  echo "FAILED: the damage is not told once"
  cat checkpoints.log
  failures=$((failures + 1))
}

expect numbers 3 4 "error: the loss is not finite: rank [0-2], step [0-9]+, .*sample" \
  "${train[@]}" model.embedding_multiplier=3e38 --set model.init.embedding=10 \
  --set run.directory=numbers
if grep 'error: ' numbers.log | grep -qE 'rank.*rank [0-9]|[.]cpp'; then
  echo "FAILED: the rank twice, or a place in the source"
  cat numbers.log
  failures=$((failures + 1))
fi

# Weights that become infinite are not saved in place of good ones; a broken checkpoint is told of
# by one process.
wild=(parallel.zero_stage=1 --set checkpoint.every=1 --set checkpoint.keep=1
  --set run.directory=wild)
launch wild_good.log 2 "${train[@]}" "${wild[@]}" || { cat wild_good.log && exit 1; }
expect wild 2 4 "(loss|gradient|state) is not finite: .*goes on after step 2" \
  "${train[@]}" "${wild[@]}" --set train.steps=9 --set optim.lr=1000 --set optim.clip=0 \
  --set "stages=[{lr_multiplier=1e6}]"
[[ $(ls wild/checkpoints) == *step_00000002* ]] || {
  echo "FAILED: the good checkpoint is gone:" && ls wild/checkpoints
  failures=$((failures + 1))
}
launch two.log 2 "${train[@]}" run.directory=two --set checkpoint.every=1 || cat two.log
truncate -s 100 two/checkpoints/step_00000002/rank_00000.h5
launch broken.log 2 "${train[@]}" run.directory=two
(($? == 0 && $(grep -c 'warning: ' broken.log) == 1)) || {
  echo "FAILED: the broken checkpoint is not told of once"
  cat broken.log
  failures=$((failures + 1))
}

# More processes than micro-batches: legal, said once.
launch idle.log 4 "${train[@]}" run.directory=idle --set train.exact=true || {
  echo "FAILED idle: exit code $?"
  failures=$((failures + 1))
}
(($(grep -c 'warning: 4 ranks share 3 micro-batches' idle.log) == 1)) || {
  echo "FAILED: idle processes are not told of once"
  cat idle.log
  failures=$((failures + 1))
}
(($(grep -c 'warning: ' good.log) == 0)) || {
  echo "FAILED: warnings of a good start"
  cat good.log
  failures=$((failures + 1))
}
((failures == 0)) && echo passed
exit $((failures > 0))

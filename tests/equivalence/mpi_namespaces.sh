#!/bin/bash
# Two ranks on two machines: two network namespaces, each with its own host name and addresses,
# joined by nothing but a pair of virtual interfaces. mpirun starts in the first and reaches the
# second through a launch agent, as it would through ssh. Losses, norms and the validation loss of
# several layouts equal those of threads, and the bytes have crossed the wire; a wire that is cut
# ends the run with the rank that does not answer.
#
#   tests/equivalence/mpi_namespaces.sh PROGRAM DATA FOLDER
#   tests/equivalence/mpi_namespaces.sh build/release/shoestring "$PWD/tests/data" build/namespaces
#
# Needs root, and a kernel that lets namespaces be made: a command of its own, not one of ctest's.
set -uo pipefail
(($# == 3)) || {
  sed -n '8,9s/^# *//p' "$0" >&2
  exit 2
}
program=$(realpath "$1") data=$(realpath "$2") folder=$3
rm -rf "$folder" && mkdir -p "$folder" && cd "$folder" || exit 1
folder=$PWD
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
machines=("shoe$$a" "shoe$$b")
addresses=(10.231.17.1 10.231.17.2)

remove_machines() {
  local machine
  for machine in "${machines[@]}"; do
    ip netns pids "$machine" 2>/dev/null | xargs -r kill -KILL
    ip netns del "$machine" 2>/dev/null
  done
}
trap remove_machines EXIT
failed() {
  echo "FAILED $*"
  cat "$folder"/*.log
  exit 1
}
need() { # COMMAND...: a step without which there are no machines
  "$@" 2>need.log && return
  echo "FAILED: two machines cannot be made here, '$*' says: $(<need.log)"
  echo "run this as root where the kernel has network and UTS namespaces and veth interfaces"
  exit 1
}

for machine in "${machines[@]}"; do need ip netns add "$machine"; done
need ip link add wire netns "${machines[0]}" type veth peer name wire netns "${machines[1]}"
for i in 0 1; do
  need ip -n "${machines[$i]}" address add "${addresses[$i]}/24" dev wire
  need ip -n "${machines[$i]}" link set wire up
  need ip -n "${machines[$i]}" link set lo up
  # TCP gives up what is not acknowledged after 13 seconds instead of 15 minutes.
  need ip netns exec "${machines[$i]}" sysctl -q -w net.ipv4.tcp_retries2=5
done

# on ADDRESS WORDS...: what ssh would do. mpirun calls it with one command line in several words.
cat >on <<END
#!/bin/bash
machine=${machines[1]}
[[ \$1 == ${addresses[1]} ]] || machine=${machines[0]}
shift
exec ip netns exec "\$machine" unshare --uts bash -c \\
  'hostname "\$1" && shift && eval "exec \$*"' bash "\$machine" "\$@"
END
chmod +x on
need ./on "${addresses[0]}" true

cat >run.toml <<END
threads = 2
tokenizer = "$data/tiny/tokenizer.json"
[train]
steps = 4
batch = 8
micro_batch = 1
sequence_length = 64
evaluate_every = 2
evaluate_sequences = 4
measure_peak = false
log_every = 1
[model]
layers = 4
hidden = 64
ffn = 128
heads = 4
kv_heads = 2
max_positions = 64
[parallel]
deadline = 60
[checkpoint]
deadline = 30
[optim.schedule]
total = 10000
[data]
held_out = 0.1
[[data.sources]]
path = "$data/tiny/persuasion.h5"
END

figures() { grep -o '"\(step\|loss\|gradient_norm\|validation_loss\)":[^,}]*' "$1/metrics.jsonl"; }
received() { ip netns exec "$1" cat /sys/class/net/wire/statistics/rx_bytes; }
launch() { # LOG ARGUMENTS...: on both machines; mpirun notices soon when one falls away
  local log=$1
  shift
  ./on "${addresses[0]}" mpirun --host "${addresses[0]}:1,${addresses[1]}:1" -n 2 \
    --bind-to none --wdir "$folder" --mca plm_rsh_agent "$folder/on" \
    --mca oob_tcp_keepalive_time 2 --mca oob_tcp_keepalive_intvl 1 \
    --mca oob_tcp_keepalive_probes 3 "$program" train run.toml "$@" >"$log" 2>&1
}

# The bytes that must cross to each machine in four steps at least: of f32 gradients, or of the
# activations of 8 sequences of 64 tokens.
layouts=("dp 400000 parallel.data_parallel=2 parallel.zero_stage=1"
  "tp 1000000 mesh.tp=2" "cp 100000 mesh.cp=2" "pp 400000 mesh.pp=2 pipeline.schedule=zb-h1")
for layout in "${layouts[@]}"; do
  read -r name least words <<<"$layout"
  set=()
  for word in $words; do set+=(--set "$word"); done
  "$program" train run.toml "${set[@]}" --set run.directory="$name.threads" \
    >"$name.threads.log" 2>&1 || failed "$name on threads"
  before=("$(received "${machines[0]}")" "$(received "${machines[1]}")")
  launch "$name.machines.log" "${set[@]}" --set run.directory="$name.machines" ||
    failed "$name on machines"
  for i in 0 1; do
    bytes=$(($(received "${machines[$i]}") - before[i]))
    ((bytes >= least)) || failed "$name: $bytes bytes came to machine $i, not $least"
  done
  [[ $(figures "$name.threads") == "$(figures "$name.machines")" ]] || {
    diff <(figures "$name.threads") <(figures "$name.machines")
    failed "$name: machines and threads differ"
  }
  (($(figures "$name.machines" | wc -l) == 14)) || failed "$name: not the figures of four steps"
  grep -q "on 2 ranks of 2 threads" "$name.machines.log" ||
    failed "$name: each rank has a machine of its own, and all of its threads"
  echo "$name: 4 steps like threads, $bytes bytes over the wire"
done

# The wire breaks: nobody hangs on either side, and one line says who does not answer.
launch cut.log --set mesh.tp=2 --set run.directory=cut --set train.steps=100000 \
  --set parallel.deadline=3 --set checkpoint.deadline=1 &
launcher=$!
until grep -q "step 2/100000" cut.log 2>/dev/null; do
  kill -0 $launcher 2>/dev/null || failed "the run ended before the wire was cut"
  sleep 0.1
done
ip -n "${machines[0]}" link set wire down
begin=$SECONDS
for machine in "${machines[@]}"; do
  while [[ -n $(ip netns pids "$machine") ]]; do
    ((SECONDS - begin < 60)) || failed "a minute after the wire was cut $machine still works"
    sleep 0.1
  done
done
wait $launcher
code=$?
((code == 4)) || failed "exit code $code instead of 4"
grep -q "waited 3000 ms for rank 1" cut.log || failed "the rank that does not answer is not named"
echo "cut: both machines ended after $((SECONDS - begin)) s"
echo passed

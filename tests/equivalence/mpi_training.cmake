# Trains on real text with two threads and with two processes under mpirun, also from the other's
# checkpoint, and compares losses at full precision. Run with -DPROGRAM= -DDATA= -DFOLDER=.
cmake_minimum_required(VERSION 3.22)
file(REMOVE_RECURSE ${FOLDER})
file(MAKE_DIRECTORY ${FOLDER})

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${FOLDER} RESULT_VARIABLE code
    OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "exit code ${code} of ${ARGN}\n${text}")
  endif()
endfunction()

set(tokenizer ${DATA}/tokenizer/trained_gpt2.json)
run(${PROGRAM} data pack ${DATA}/tiny/persuasion.jsonl --tokenizer ${tokenizer} --out text.h5
  --quiet)
file(WRITE ${FOLDER}/run.toml "
threads = 2
tokenizer = \"${tokenizer}\"
[train]
steps = 6
batch = 6
micro_batch = 2
sequence_length = 64
dtype = \"bf16\"
evaluate_sequences = 4
measure_peak = false
[model]
layers = 2
hidden = 64
ffn = 128
max_positions = 64
[parallel]
zero_stage = 1
bucket_mb = 0.1
[optim.schedule]
total = 10000
[data]
held_out = 0.1
[[data.sources]]
path = \"text.h5\"
")

set(train ${PROGRAM} train run.toml --set)
set(mpirun mpirun --allow-run-as-root --oversubscribe -n 2)
run(${train} run.directory=threads --set parallel.data_parallel=2)
run(${mpirun} ${train} run.directory=processes)
run(${mpirun} ${train} run.directory=both --set train.steps=3)
run(${train} run.directory=both --set parallel.data_parallel=2)

# The figures of every step that do not depend on time.
function(figures out directory)
  file(STRINGS ${FOLDER}/${directory}/metrics.jsonl lines)
  set(list)
  foreach(line IN LISTS lines)
    foreach(key step loss gradient_norm)
      string(JSON value GET "${line}" ${key})
      string(REGEX MATCH "\"${key}\":([^,}]*)" whole "${line}")
      list(APPEND list "${whole}")
    endforeach()
  endforeach()
  set(${out} "${list}" PARENT_SCOPE)
endfunction()
figures(threads threads)
figures(processes processes)
figures(both both)
list(LENGTH threads count)
if(NOT count EQUAL 18)
  message(FATAL_ERROR "6 steps have 18 figures, not ${count}: ${threads}")
endif()
foreach(other processes both)
  if(NOT "${threads}" STREQUAL "${${other}}")
    message(FATAL_ERROR "threads: ${threads}\n${other}: ${${other}}")
  endif()
endforeach()
foreach(name validation_loss bits_per_byte)
  foreach(directory threads processes both)
    file(READ ${FOLDER}/${directory}/summary.json summary)
    string(JSON ${directory}_value GET "${summary}" ${name})
  endforeach()
  if(NOT "${threads_value}" STREQUAL "${processes_value}" OR
     NOT "${threads_value}" STREQUAL "${both_value}")
    message(FATAL_ERROR "${name}: ${threads_value} ${processes_value} ${both_value}")
  endif()
endforeach()

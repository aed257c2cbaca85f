# Benchmarks of single ops: every *_bench.cpp here is part of one program. Its smallest cases run as
# a test, so that they keep working.
file(GLOB bench_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*_bench.cpp)
add_executable(bench_ops ${CMAKE_CURRENT_LIST_DIR}/bench_main.cpp ${bench_sources})
target_link_libraries(bench_ops PRIVATE shoestring_optim benchmark::benchmark)
add_test(NAME bench.smoke COMMAND bench_ops --benchmark_min_time=0.001 --benchmark_filter=smoke)
set_tests_properties(bench.smoke PROPERTIES LABELS bench TIMEOUT 120)

# A whole training step beside PyTorch's: tests/bench/peer runs it.
file(GLOB step_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/step/*.cpp)
add_executable(bench_step ${step_sources})
target_link_libraries(bench_step PRIVATE shoestring_launcher GTest::gtest)
# Steps end well and the profile is printed.
add_test(NAME bench.step_smoke COMMAND bash -c
  "set -o pipefail; \"$0\" \"$@\" 2>&1 | tee /dev/stderr | grep -c 'ms in ops'"
  $<TARGET_FILE:bench_step> --layers 2 --dim 64 --heads 4 --kv-heads 2 --ffn 96 --vocab 128
  --micro-batch 2 --seq 24 --warmup 1 --steps 2 --dtype bf16 --ranks 2 --checked --exact
  --statistics --profile)
set_tests_properties(bench.step_smoke PROPERTIES LABELS bench TIMEOUT 120)
# Our side of tests/bench/tokenizer_speed.
add_executable(tokenizer_encode ${CMAKE_CURRENT_LIST_DIR}/tokenizer_encode.cpp)
target_link_libraries(tokenizer_encode PRIVATE shoestring_io)
set(tokenizer_data ${CMAKE_SOURCE_DIR}/tests/data/tokenizer)
add_test(NAME bench.tokenizer_encode
  COMMAND tokenizer_encode ${tokenizer_data}/gpt2.json ${tokenizer_data}/corpus.txt 2 1)
set_tests_properties(bench.tokenizer_encode PROPERTIES LABELS bench TIMEOUT 60)
# Decoding beside transformers: tests/bench/decode_speed runs it.
add_executable(bench_decode ${CMAKE_CURRENT_LIST_DIR}/decode/decode_main.cpp)
target_link_libraries(bench_decode PRIVATE shoestring_launcher)
add_test(NAME bench.decode_smoke COMMAND bench_decode
  --config ${CMAKE_CURRENT_LIST_DIR}/decode/smoke.toml --tokens 2 --prompt 3 --sequences 2
  --dtype bf16 --profile)
set_tests_properties(bench.decode_smoke PROPERTIES LABELS bench TIMEOUT 120)
# What the pipeline engine adds to an instruction, beside the bare loop of the same calls.
add_executable(bench_schedule_overhead
  ${CMAKE_CURRENT_LIST_DIR}/schedule_overhead/overhead_main.cpp)
target_link_libraries(bench_schedule_overhead PRIVATE shoestring_launcher)
add_test(NAME bench.schedule_overhead COMMAND bench_schedule_overhead --micro-batches 64 --rounds 2)
set_tests_properties(bench.schedule_overhead PROPERTIES LABELS bench TIMEOUT 60)
# Two ranks beside one, as whole runs of the binary.
find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME bench.layouts_quick
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/layouts --quick --only zb)
set_tests_properties(bench.layouts_quick PROPERTIES LABELS bench TIMEOUT 300)
# How long the ranks of a mesh take from their start to their first instruction.
add_executable(bench_start_of_ranks ${CMAKE_CURRENT_LIST_DIR}/start_of_ranks/start_main.cpp)
target_link_libraries(bench_start_of_ranks PRIVATE shoestring_launcher)
add_test(NAME bench.start_of_ranks COMMAND bench_start_of_ranks --ranks 4 --pp 2 --ep 2)
set_tests_properties(bench.start_of_ranks PROPERTIES LABELS bench TIMEOUT 120)

# Benchmarks of single ops: every *_bench.cpp here is part of one program. Its smallest cases run as
# a test, so that they keep working.
file(GLOB bench_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*_bench.cpp)
add_executable(bench_ops ${CMAKE_CURRENT_LIST_DIR}/bench_main.cpp ${bench_sources})
target_link_libraries(bench_ops PRIVATE shoestring_optim benchmark::benchmark)
add_test(NAME bench.smoke COMMAND bench_ops --benchmark_min_time=0.001 --benchmark_filter=smoke)
set_tests_properties(bench.smoke PROPERTIES LABELS bench TIMEOUT 120)

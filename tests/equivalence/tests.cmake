# These tests start the binary itself.
add_dependencies(test_equivalence shoestring)
# A sanitizer's shadow is far larger than any limit on memory that a test could set.
target_compile_definitions(test_equivalence PRIVATE
  SHOESTRING_MEMORY_LIMITS=$<IF:$<BOOL:${SHOESTRING_SANITIZER}>,false,true>)

if(SHOESTRING_SANITIZER STREQUAL "thread")
  # Open MPI is not instrumented, so the thread sanitizer would report its inside.
  message(STATUS "training over MPI is not part of a thread sanitizer build")
else()
  # Two processes and two threads: the same bits.
  add_test(NAME equivalence.mpi_training COMMAND ${CMAKE_COMMAND}
    -DPROGRAM=$<TARGET_FILE:shoestring> -DDATA=${CMAKE_SOURCE_DIR}/tests/data
    -DFOLDER=${CMAKE_CURRENT_BINARY_DIR}/mpi_training
    -P ${CMAKE_CURRENT_LIST_DIR}/mpi_training.cmake)
  set_tests_properties(equivalence.mpi_training PROPERTIES LABELS equivalence TIMEOUT 300
    PROCESSORS 2 ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
  add_test(NAME equivalence.mpi_stop
    COMMAND bash ${CMAKE_CURRENT_LIST_DIR}/mpi_stop.sh $<TARGET_FILE:shoestring>
    ${CMAKE_SOURCE_DIR}/tests/data ${CMAKE_CURRENT_BINARY_DIR}/mpi_stop)
  set_tests_properties(equivalence.mpi_stop PROPERTIES LABELS equivalence TIMEOUT 300
    PROCESSORS 2 ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
  add_test(NAME equivalence.mpi_errors
    COMMAND bash ${CMAKE_CURRENT_LIST_DIR}/mpi_errors.sh $<TARGET_FILE:shoestring>
    ${CMAKE_SOURCE_DIR}/tests/data ${CMAKE_CURRENT_BINARY_DIR}/mpi_errors)
  set_tests_properties(equivalence.mpi_errors PROPERTIES LABELS equivalence TIMEOUT 300
    PROCESSORS 2 ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)

  # Ranks that fail; mpi_rank_failures.sh ... full tries every rank at every place in every way.
  add_executable(mpi_rank_failure ${CMAKE_CURRENT_LIST_DIR}/mpi_rank_failure.cpp)
  target_link_libraries(mpi_rank_failure PRIVATE shoestring_launcher)
  add_test(NAME equivalence.mpi_rank_failures
    COMMAND bash ${CMAKE_CURRENT_LIST_DIR}/mpi_rank_failures.sh
    $<TARGET_FILE:mpi_rank_failure> ${CMAKE_SOURCE_DIR}/tests
    ${CMAKE_CURRENT_BINARY_DIR}/mpi_rank_failures)
  set_tests_properties(equivalence.mpi_rank_failures PROPERTIES LABELS equivalence TIMEOUT 600
    PROCESSORS 2 ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
endif()

# Folders in and out through transformers itself.
set(SHOESTRING_PEER_PYTHON "" CACHE FILEPATH "a Python with torch and transformers, for the peers")
if(SHOESTRING_PEER_PYTHON)
  add_test(NAME equivalence.hf_roundtrip COMMAND ${SHOESTRING_PEER_PYTHON}
    ${CMAKE_CURRENT_LIST_DIR}/hf_roundtrip.py $<TARGET_FILE:shoestring>
    ${CMAKE_SOURCE_DIR}/tests/data/hf)
  set_tests_properties(equivalence.hf_roundtrip PROPERTIES LABELS equivalence TIMEOUT 600)
else()
  message(STATUS "hf_roundtrip.py is not among the tests: SHOESTRING_PEER_PYTHON is not set")
endif()

# The conformance cases on every back end: threads in test_conformance, processes under mpirun.
target_sources(test_conformance PRIVATE ${CMAKE_CURRENT_LIST_DIR}/communicator_cases.cpp)
target_include_directories(test_conformance PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})

if(SHOESTRING_SANITIZER STREQUAL "thread")
  # Open MPI is not instrumented, so the thread sanitizer would report its inside.
  message(STATUS "the MPI conformance tests are not part of a thread sanitizer build")
else()
  add_executable(mpi_conformance ${CMAKE_CURRENT_LIST_DIR}/mpi_conformance.cpp
    ${CMAKE_CURRENT_LIST_DIR}/communicator_cases.cpp)
  target_include_directories(mpi_conformance PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(mpi_conformance PRIVATE shoestring_parallel)
  set(mpirun mpirun --allow-run-as-root --oversubscribe)

  function(mpi_case name)
    add_test(NAME conformance.mpi.${name} COMMAND ${mpirun} ${ARGN})
    # Open MPI keeps memory to its end, which is no leak of ours.
    set_tests_properties(conformance.mpi.${name} PROPERTIES LABELS conformance TIMEOUT 300
      PROCESSORS 2 ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
  endfunction()
  foreach(ranks 1 2 3 4)
    mpi_case(${ranks}_ranks -n ${ranks} $<TARGET_FILE:mpi_conformance>)
  endforeach()
  mpi_case(3_ranks_in_pieces -n 3 $<TARGET_FILE:mpi_conformance> 1000)

  # The last of three ranks misbehaves: all end within the time, with an exit code that is not 0
  # and words that name it.
  function(mpi_failure mode code words)
    add_test(NAME conformance.mpi.failure_${mode} COMMAND ${CMAKE_COMMAND}
      -DPROGRAM=$<TARGET_FILE:mpi_conformance> -DMODE=${mode} -DCODE=${code} "-DWORDS=${words}"
      -P ${CMAKE_CURRENT_LIST_DIR}/mpi_failure.cmake)
    set_tests_properties(conformance.mpi.failure_${mode} PROPERTIES LABELS conformance TIMEOUT 60
      PROCESSORS 2 ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
  endfunction()
  mpi_failure(throw 3 "rank 2: the disk of this rank is on fire")
  mpi_failure(late 4 "rank 0 on .*: MPI has not started within 3000 ms")
  mpi_failure(die 137 "rank 2 .* on signal 9")
  mpi_failure(slow_cause 3 "rank 2: this is the cause")
  mpi_failure(no_cause 4 "another rank failed")
  mpi_failure(stall 4 "waited 1000 ms for rank 2 in all_reduce #1 of 'world'")
  mpi_failure(mismatch 4
    "rank 2 sends .* bytes .* in all_reduce #1|rank [01] sends .* that rank 2 expects")
endif()

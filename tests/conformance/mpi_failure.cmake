# cmake -DPROGRAM= -DMODE= -DCODE= -DWORDS= -P: runs the program with a rank that misbehaves and
# checks the exit code and that the message has the words. Twelve seconds are enough for a deadline
# of one second and mpirun's own two, on a busy machine too.
execute_process(COMMAND mpirun --allow-run-as-root --oversubscribe -n 3 ${PROGRAM} fail ${MODE}
  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output TIMEOUT 12)
if(NOT result STREQUAL CODE)
  message(FATAL_ERROR "exit code ${result} instead of ${CODE}; output:\n${output}")
endif()
if(NOT output MATCHES "${WORDS}")
  message(FATAL_ERROR "the output does not match '${WORDS}':\n${output}")
endif()

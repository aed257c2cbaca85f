# Tests of the command line run the binary itself.
add_dependencies(test_launcher shoestring)
add_test(NAME launcher.install
  COMMAND bash ${CMAKE_SOURCE_DIR}/tests/launcher/install_test.sh ${CMAKE_SOURCE_DIR})
set_tests_properties(launcher.install PROPERTIES LABELS launcher TIMEOUT 120)
add_test(NAME launcher.quickstart
  COMMAND bash ${CMAKE_SOURCE_DIR}/tests/launcher/quickstart_test.sh ${CMAKE_SOURCE_DIR})
set_tests_properties(launcher.quickstart PROPERTIES LABELS launcher TIMEOUT 120)
add_test(NAME launcher.quickstart_summary
  COMMAND python3 -B ${CMAKE_SOURCE_DIR}/tests/launcher/quickstart_summary_test.py)
set_tests_properties(launcher.quickstart_summary PROPERTIES LABELS launcher TIMEOUT 60)

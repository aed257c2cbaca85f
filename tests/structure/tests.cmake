# Every file is formatted as .clang-format says.
set(all_code "git -c safe.directory='*' ls-files '*.h' '*.cpp' '*.cu' '*.cuh'")
add_test(NAME structure.Format
  COMMAND bash -c "${all_code} | xargs clang-format-14 --dry-run -Werror"
  WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(structure.Format PROPERTIES LABELS structure TIMEOUT 120)

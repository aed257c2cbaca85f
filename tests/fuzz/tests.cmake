# Programs that feed bytes to a reader: every input is accepted or refused with an Error, nothing
# else. With the preset `fuzz` libFuzzer looks for new inputs; in all other builds each program
# replays its seeds and fixed mutations of them, as an ordinary test.
function(shoestring_fuzz name library)
  add_executable(${name}_fuzz ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${name}_fuzz.cpp)
  target_link_libraries(${name}_fuzz PRIVATE ${library})
  set(seeds ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/seeds/${name})
  if(SHOESTRING_SANITIZER STREQUAL "fuzzer")
    target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${name}_fuzz PRIVATE ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/replay_main.cpp)
    add_test(NAME fuzz.${name} COMMAND ${name}_fuzz ${seeds})
    set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 300)
  endif()
endfunction()

shoestring_fuzz(config shoestring_launcher)
shoestring_fuzz(tokenizer shoestring_io)
shoestring_fuzz(text shoestring_io)
shoestring_fuzz(store shoestring_io)
shoestring_fuzz(checkpoint shoestring_io)
shoestring_fuzz(safetensors shoestring_io)
shoestring_fuzz(hf_config shoestring_io)

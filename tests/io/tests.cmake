# A sanitizer keeps freed memory for a while: limits on memory hold without one.
target_compile_definitions(test_io PRIVATE
  SHOESTRING_MEMORY_LIMITS=$<IF:$<BOOL:${SHOESTRING_SANITIZER}>,false,true>)

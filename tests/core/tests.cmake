# The whole of core once more, as on a processor without AVX-512: other kernels, bf16 widened.
add_test(NAME core.capped_at_avx2 COMMAND test_core --gtest_brief=1)
set_tests_properties(core.capped_at_avx2 PROPERTIES
  LABELS core TIMEOUT 900 ENVIRONMENT SHOESTRING_ISA=avx2)

#include <benchmark/benchmark.h>

#include "core/instruction_set.h"

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  shoestring::cap_instruction_set_from_environment();
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

// The conformance cases on threads as ranks; tests.cmake runs the same cases on MPI processes.

#include <gtest/gtest.h>

#include <ostream>

#include "conformance/communicator_cases.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"

namespace shoestring {

// Found by the test framework, which would print the bytes of pointers otherwise.
void PrintTo(const CommunicatorCase& c, std::ostream* out) { *out << c.name; }

namespace {

class Conformance : public ::testing::TestWithParam<std::tuple<CommunicatorCase, int>> {};

TEST_P(Conformance, InProcess) {
  const auto& [tested, ranks] = GetParam();
  run_ranks(ranks, tested.run, {.deadline = std::chrono::seconds(60)});
}

std::string name_of_test(const ::testing::TestParamInfo<Conformance::ParamType>& info) {
  return cat(std::get<0>(info.param).name, "_", std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Cases, Conformance,
                         ::testing::Combine(::testing::ValuesIn(communicator_cases().begin(),
                                                                communicator_cases().end()),
                                            ::testing::Values(1, 2, 3, 4, 5)),
                         name_of_test);

}  // namespace
}  // namespace shoestring

#include "core/instruction_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

#include "core/check.h"

namespace shoestring {
namespace {

constexpr std::array<std::string_view, 4> names = {"avx512_bf16", "avx512", "avx2", "sse4"};

TEST(InstructionSet, HasOneOfTheNames) {
  EXPECT_NE(std::find(names.begin(), names.end(), instruction_set()), names.end());
  EXPECT_EQ(has_bf16_products(), instruction_set() == "avx512_bf16");
}

TEST(InstructionSet, UnknownNamesAreRefusedWithTheKnownOnes) {
  std::string_view before = instruction_set();
  try {
    cap_instruction_set("avx3");
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_EQ(std::string(e.what()),
              "instruction set 'avx3' is unknown; the names are avx512_bf16, avx512, avx2, sse4");
  }
  EXPECT_EQ(instruction_set(), before);
}

// In a child process: the cap is for a whole process, and must come before its first product.
TEST(InstructionSetDeathTest, CapsLower) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  ::unsetenv("SHOESTRING_ISA");  // the child's own cap is the first one
  auto found = std::find(names.begin(), names.end(), instruction_set());
  for (auto cap = static_cast<size_t>(found - names.begin()); cap < names.size(); ++cap) {
    EXPECT_EXIT(
        {
          cap_instruction_set(names[cap]);
          std::exit(instruction_set() == names[cap] ? 0 : 1);
        },
        testing::ExitedWithCode(0), "");
  }
}

}  // namespace
}  // namespace shoestring

#include "core/environment.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace shoestring {
namespace {

TEST(Environment, ReadsWhatIsSetNow) {
  ::setenv("SHOESTRING_TEST_VARIABLE", "a value", 1);
  EXPECT_EQ(environment_variable("SHOESTRING_TEST_VARIABLE"), "a value");
  ::setenv("SHOESTRING_TEST_VARIABLE", "", 1);
  EXPECT_EQ(environment_variable("SHOESTRING_TEST_VARIABLE"), "");
  ::unsetenv("SHOESTRING_TEST_VARIABLE");
  EXPECT_EQ(environment_variable("SHOESTRING_TEST_VARIABLE"), std::nullopt);
}

}  // namespace
}  // namespace shoestring

#include "core/check.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(Check, ErrorsCarryCodeAndPosition) {
  try {
    fail_data("file.h5: truncated");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::data);
    EXPECT_EQ(e.where().rfind("tests/core/check_test.cpp:", 0), 0u) << e.where();
    EXPECT_STREQ(e.what(), "file.h5: truncated");
  }
  try {
    fail("the cable is out", std::source_location());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.where(), "");
  }
  EXPECT_NO_THROW(check(true, "fine"));
  EXPECT_THROW(check(false, "broken"), Error);
}

}  // namespace
}  // namespace shoestring

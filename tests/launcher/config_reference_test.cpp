#include <gtest/gtest.h>

#include "launcher/config.h"
#include "tests/launcher/sample_config.h"

namespace shoestring {
namespace {

TEST(ConfigReference, HasARowForEveryField) {
  std::string page = config_reference<SampleConfig>();
  for (const char* row : {
           "| `title` | text | `\"untitled\"` |  |  | for people \\| and tables |\n",
           "## `[train]`\n\nThe loop.\n\n| key | type |",
           "| `steps` | whole number | `10` |  | from 1 to 1000000000000 | optimiser steps |\n",
           "| `clip` | number or \"none\" | `\"none\"` |  | at least 0 | largest norm |\n",
           "| `limit` | whole number or \"none\" | `5` |  |  | not more |\n",
           "## `[train.inner]`\n\ninside\n",
           "| `rate` | number | `0.5` | 1/s | from 0 to 1 | how fast |\n",
           "## `[[stages]]`\n\nBy tokens. An array of tables",
           "| `tokens` | whole number | `100` | tokens | at least 1 | length |\n",
           "## `[stages.inner]`",
       }) {
    EXPECT_NE(page.find(row), std::string::npos) << row;
  }
  EXPECT_TRUE(page.ends_with("|\n"));
  EXPECT_FALSE(page.ends_with("\n\n"));
}

}  // namespace
}  // namespace shoestring

#include "launcher/config_fields.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/launcher/sample_config.h"

namespace shoestring {
namespace {

TEST(ConfigFields, ListsFieldsSectionsAndArraysInOrder) {
  SampleConfig c;
  FieldList list = fields_of(c);
  EXPECT_EQ(names_of(list),
            (std::vector<std::string>{"title", "paths", "sizes", "flags", "train", "stages"}));
  const FieldNode* train = find_node(list, "train");
  ASSERT_NE(train, nullptr);
  EXPECT_TRUE(std::get<FieldList>(train->content).validate);
  EXPECT_FALSE(list.validate);
  EXPECT_EQ(find_node(list, "none"), nullptr);
}

TEST(ConfigFields, PointersReachTheStruct) {
  SampleConfig c;
  FieldList list = fields_of(c);
  *std::get<std::string*>(std::get<FieldPointer>(find_node(list, "title")->content)) = "changed";
  EXPECT_EQ(c.title, "changed");
  const auto& stages = std::get<TableArray>(find_node(list, "stages")->content);
  stages.append();
  stages.append();
  EXPECT_EQ(c.stages.size(), 3u);
  FieldList last = stages.at(2);
  *std::get<int64_t*>(std::get<FieldPointer>(find_node(last, "tokens")->content)) = 5;
  EXPECT_EQ(c.stages[2].tokens, 5);
  stages.clear();
  EXPECT_TRUE(c.stages.empty());
  EXPECT_EQ(names_of(stages.prototype()), (std::vector<std::string>{"tokens", "name", "inner"}));
}

TEST(ConfigFields, Texts) {
  EXPECT_EQ(toml_number(0.1), "0.1");
  EXPECT_EQ(toml_number(2), "2.0");
  EXPECT_EQ(toml_number(1e22), "1e+22");
  EXPECT_EQ(toml_number(-std::numeric_limits<double>::infinity()), "-inf");
  EXPECT_EQ(toml_number(std::numeric_limits<double>::quiet_NaN()), "nan");
  EXPECT_EQ(toml_string("a\"b\\\n\x02\x7f"), "\"a\\\"b\\\\\\n\\u0002\\u007f\"");
  EXPECT_EQ(range_text(Field{.help = "", .min = 0, .max = 1}), "from 0 to 1");
  EXPECT_EQ(range_text(Field{.help = "", .min = 0.5}), "at least 0.5");
  EXPECT_EQ(range_text(Field{.help = "", .max = 2}), "at most 2");
  EXPECT_EQ(range_text(Field{.help = "", .choices = "a|b"}), "one of a, b");
  EXPECT_EQ(range_text(Field{.help = ""}), "");
  EXPECT_EQ(join_key("", "a"), "a");
  EXPECT_EQ(join_key("a", "b"), "a.b");
  std::optional<double> none;
  EXPECT_EQ(toml_value(&none), "");
  EXPECT_TRUE(is_optional(&none));
  EXPECT_EQ(type_text(&none), "number");
  std::vector<int64_t> sizes = {1, 2};
  EXPECT_EQ(toml_value(&sizes), "[1, 2]");
  EXPECT_EQ(type_text(&sizes), "list of whole numbers");
}

}  // namespace
}  // namespace shoestring

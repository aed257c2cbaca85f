#include "launcher/data_inspect_command.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "launcher/data_pack_command.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(DataInspectCommand, DescribesAStore) {
  ScratchFolder folder;
  make_store(folder / "a.h5", {{1, 2, 3}, {4, 5}}, plain_facts());
  const std::string text = data_inspect({.file = folder / "a.h5", .document = {}});
  for (const char* part : {"5 (2 bytes each)", "15 bytes, 3 a token", "1000", "abc", "--verify"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in " << text;
  }
  const auto json = nlohmann::json::parse(
      data_inspect({.file = folder / "a.h5", .verify = true, .json = true, .document = {}}));
  EXPECT_EQ(json["tokens"], 5);
  EXPECT_EQ(json["documents"], 2);
  EXPECT_EQ(json["verified"], "all");
  EXPECT_EQ(json["provenance"]["program"], "test");
  const auto document =
      nlohmann::json::parse(data_inspect({.file = folder / "a.h5", .document = 1}));
  EXPECT_EQ(document["ids"], (std::vector<int>{4, 5}));
  expect_error(ExitCode::usage, {"no document 2", "0 to 1"},
               [&] { data_inspect({.file = folder / "a.h5", .document = 2}); });
}

TEST(DataInspectCommand, VerifyFindsWhatTheIndexCannotSee) {
  ScratchFolder folder;
  const std::string path = folder / "a.h5";
  make_store(path, {std::vector<int32_t>(5000, 7)}, plain_facts());
  std::string bytes = read_file(path);
  const size_t at = bytes.find(std::string("\x07\0\x07\0\x07\0", 6)) + 1000;
  bytes[at] = static_cast<char>(bytes[at] ^ 4);
  write_file(path, bytes);
  data_inspect({.file = path, .document = {}});
  expect_error(ExitCode::data, {path, "chunk 0", "damaged"},
               [&] { data_inspect({.file = path, .verify = true, .document = {}}); });
}

TEST(DataInspectCommand, PrintsTextOnlyWithTheRightTokenizer) {
  ScratchFolder folder;
  make_store(folder / "a.h5", {{1, 2, 3}}, plain_facts());
  expect_error(ExitCode::data, {"none.json"}, [&] {
    data_inspect({.file = folder / "a.h5", .document = 0, .tokenizer = folder / "none.json"});
  });
}

}  // namespace
}  // namespace shoestring

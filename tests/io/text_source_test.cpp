#include "io/text_source.h"

#include <zstd.h>

#include "core/text.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

std::vector<std::string> documents_of(const TextInput& input, const TextOptions& options = {},
                                      TextCounts* counts = nullptr) {
  std::vector<std::string> out;
  std::string open;
  const TextCounts got = read_documents(input, options, [&](TextPiece&& p) {
    open += p.text;
    if (p.last) out.push_back(std::exchange(open, {}));
  });
  if (counts != nullptr) *counts = got;
  return out;
}

TEST(TextSource, ListsFoldersInOrder) {
  ScratchFolder folder;
  for (const char* name :
       {"b.txt", "a/z.jsonl", "a/y.txt.gz", "a.md", "a/skip.bin", "c.ndjson.zst"}) {
    write_file(folder / name, "x");
  }
  int64_t passed_over = 0;
  const auto inputs =
      list_inputs({folder.path(), folder / "b.txt"}, TextFormat::by_name, &passed_over);
  std::vector<std::string> names;
  for (const TextInput& input : inputs)
    names.push_back(input.path.substr(folder.path().size() + 1));
  EXPECT_EQ(names, (std::vector<std::string>{"a.md", "a/y.txt.gz", "a/z.jsonl", "b.txt",
                                             "c.ndjson.zst", "b.txt"}));
  EXPECT_EQ(passed_over, 1);
  EXPECT_EQ(inputs[2].format, TextFormat::json_lines);
  EXPECT_EQ(inputs[4].format, TextFormat::json_lines);
  EXPECT_EQ(inputs[3].format, TextFormat::text);
  EXPECT_EQ(inputs[3].bytes, 1u);
  EXPECT_EQ(list_inputs({folder / "a/skip.bin"}, TextFormat::by_name, nullptr).size(), 1u);
  EXPECT_EQ(list_inputs({folder / "b.txt"}, TextFormat::json_lines, nullptr)[0].format,
            TextFormat::json_lines);
}

TEST(TextSource, SaysWhatIsMissing) {
  ScratchFolder folder;
  expect_error(ExitCode::usage, {"no input"}, [] { list_inputs({}, TextFormat::text, nullptr); });
  expect_error(ExitCode::data, {"missing.txt", "No such file"},
               [&] { list_inputs({folder / "missing.txt"}, TextFormat::text, nullptr); });
  expect_error(ExitCode::data, {"holds no .txt"},
               [&] { list_inputs({folder.path()}, TextFormat::text, nullptr); });
  expect_error(ExitCode::usage, {"named twice"}, [] {
    list_inputs({"-", "-"}, TextFormat::text, nullptr);
  });
  write_file(folder / "a.txt", "x");
  const auto input = list_inputs({folder / "a.txt"}, TextFormat::by_name, nullptr)[0];
  TextOptions options;
  options.split = DocumentSplit::separator;
  expect_error(ExitCode::usage, {"separator"}, [&] { documents_of(input, options); });
  options = {};
  options.piece_bytes = 10;
  expect_error(ExitCode::usage, {"pieces of 10"}, [&] { documents_of(input, options); });
}

// Not every command can replace bad text or choose a field: only the caller knows what to advise.
TEST(TextSource, AdvisesOnlyWhatTheCallerNames) {
  ScratchFolder folder;
  write_file(folder / "a.txt", "good \xff bad");
  write_file(folder / "b.jsonl", "{\"body\":\"x\"}\n");
  const auto inputs =
      list_inputs({folder / "a.txt", folder / "b.jsonl"}, TextFormat::by_name, nullptr);
  TextOptions options;
  for (const TextInput& input : inputs) {
    const std::string message =
        expect_error(ExitCode::data, {input.path}, [&] { documents_of(input, options); });
    EXPECT_EQ(message.find("--"), std::string::npos) << message;
  }
  options.bad_utf8_hint = ", or this";
  options.field_hint = ", or that";
  expect_error(ExitCode::data, {", or this"}, [&] { documents_of(inputs[0], options); });
  expect_error(ExitCode::data, {", or that"}, [&] { documents_of(inputs[1], options); });
}

TEST(TextSource, ReadsEveryKind) {
  ScratchFolder folder;
  write_file(folder / "a.txt", "\xef\xbb\xbfmarked");
  const std::string json = "{\"text\":\"one\"}\n{\"text\":\" \"}\n{\"text\":\"two\"}\n";
  std::string packed(ZSTD_compressBound(json.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), json.data(), json.size(), 3));
  write_file(folder / "b.jsonl.zst", packed);
  const auto inputs = list_inputs({folder.path()}, TextFormat::by_name, nullptr);
  EXPECT_EQ(documents_of(inputs[0]), std::vector<std::string>{"marked"});
  TextCounts counts;
  EXPECT_EQ(documents_of(inputs[1], {}, &counts), (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(counts.documents, 2);
  EXPECT_EQ(counts.empty, 1);
  EXPECT_EQ(counts.raw.bytes, packed.size());
}

TEST(TextSource, CutsLargeDocuments) {
  ScratchFolder folder;
  write_file(folder / "a.txt", cat(std::string(100000, 'x'), " ", std::string(100000, 'y')));
  TextOptions options;
  options.piece_bytes = 3000;
  TextCounts counts;
  const auto input = list_inputs({folder / "a.txt"}, TextFormat::by_name, nullptr)[0];
  const auto documents = documents_of(input, options, &counts);
  ASSERT_EQ(documents.size(), 1u);
  EXPECT_EQ(documents[0].size(), 200001u);
  EXPECT_EQ(counts.cut, 1);
}

}  // namespace
}  // namespace shoestring

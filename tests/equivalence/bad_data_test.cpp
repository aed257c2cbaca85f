// Bad text on its way into a store, through the binary: one message with file and position, exit
// code 3, nothing left behind; and lines of any length in bounded memory.

#include <gtest/gtest.h>

#include "tests/launcher/training_fixture.h"
#include "tests/support/child_process.h"
#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

class BadData : public testing::Test {
 protected:
  BinaryResult pack(const std::vector<std::string>& more, const std::string& input = "") {
    std::vector<std::string> words = {"data", "pack", "--tokenizer", tokenizer_, "--out", out_};
    words.insert(words.end(), more.begin(), more.end());
    return run_binary(words, input);
  }
  void expect_refused(const BinaryResult& result, const std::string& part) {
    EXPECT_EQ(result.exit_code, 3) << result.err;
    EXPECT_EQ(result.err.rfind("error: ", 0), 0u) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
    EXPECT_FALSE(std::filesystem::exists(out_));
    EXPECT_FALSE(std::filesystem::exists(out_ + ".packing"));
  }
  ScratchFolder folder_;
  const std::string tokenizer_ = SHOESTRING_SOURCE_DIR "/tests/data/tiny/tokenizer.json";
  const std::string out_ = folder_ / "out.h5";
};

TEST_F(BadData, BrokenUtf8IsRefusedReplacedOrKept) {
  expect_refused(pack({"-"}, "good \xff bad"), "standard input: bad UTF-8 at byte 5: 0xff");
  expect_refused(pack({"-"}, "cut off \xe2\x82"), "standard input: bad UTF-8 at byte 8");
  const Tokenizer tokenizer = Tokenizer::load(tokenizer_);
  for (const auto& [policy, text] :
       {std::pair("replace", "good \xef\xbf\xbd bad"), std::pair("keep", "good \xff bad")}) {
    const BinaryResult result = pack(
        {"-", "--bad-utf8", policy, "--end-of-document", "none", "--overwrite"}, "good \xff bad");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(tokenizer.decode(store_tokens(*TokenStore::open(out_))), text);
  }
}

TEST_F(BadData, EmptyDocumentsAreLeftOutAndCounted) {
  const BinaryResult some = pack({"-", "--format", "jsonl"},
                                 "{\"text\":\"\"}\n{\"text\":\"Anne\"}\n{\"text\":null}\n"
                                 "{\"text\":\" \\n\"}\n");
  EXPECT_EQ(some.exit_code, 0) << some.err;
  EXPECT_NE(some.out.find("1 document,"), std::string::npos) << some.out;
  EXPECT_NE(some.out.find("left out: 3 empty documents"), std::string::npos) << some.out;
  std::filesystem::remove(out_);
  expect_refused(pack({"-"}, ""), "no documents");
  expect_refused(pack({"-"}, " \n\n"), "no documents");
  expect_refused(pack({"-", "--format", "jsonl"}, "{\"text\":\"\"}\n"), "no documents");
}

TEST_F(BadData, BrokenFilesAreNamedWithTheirPlace) {
  expect_refused(pack({"-", "--format", "jsonl"}, "{\"text\":\"a\"}\n{\"text\":\n"),
                 "standard input:2: byte");
  expect_refused(pack({folder_ / "missing.txt"}), "missing.txt");
  write_file(folder_ / "a.txt.gz", "\x1f\x8b\x08 and then no gzip");
  expect_refused(pack({folder_ / "a.txt.gz"}), "a.txt.gz is damaged");
  write_file(folder_ / "a.jsonl.zst", "\x28\xb5\x2f\xfd and then no zstd");
  expect_refused(pack({folder_ / "a.jsonl.zst"}), "a.jsonl.zst is damaged: bad zstd data");
}

// A run's mistakes as a user meets them: one error, its code, and the run's folder as it was.
TEST(BadRun, IsRefusedWithOneMessage) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  const RunResult good = train_small(config);
  config.train.steps = 16;
  const std::string text = dump_config(config), store = folder / "first.h5";
  const auto refused = [&](int code, const std::string& toml, const std::string& part) {
    write_file(folder / "run.toml", toml);
    const BinaryResult result = run_binary({"train", folder / "run.toml"});
    EXPECT_EQ(result.exit_code, code) << result.err;
    const size_t first = result.err.find("error: ");
    ASSERT_NE(first, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find("error: ", first + 1), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
    EXPECT_EQ(tensors_of_run(config.run.directory), good.tensors);
  };
  refused(2, "[train\nsteps = 5\n", "run.toml:1:");
  refused(2, "[train]\nstpes = 5\n", "run.toml:2:1: unknown key 'stpes' in [train]; did you mean");
  refused(2, "[train]\nbatch = 5\nmicro_batch = 2\n", "not a multiple of micro_batch = 2");
  RunConfig other = config;
  other.model.ffn = 96;
  refused(3, dump_config(other), "holds another model");
  const std::string whole = read_file(store);
  std::string flipped = whole;
  flipped[flipped.size() / 2] = static_cast<char>(flipped[flipped.size() / 2] ^ 4);
  write_file(store, flipped);
  refused(3, text, store);
  write_file(store, whole.substr(0, whole.size() / 2));
  refused(3, text, "is truncated");
  std::filesystem::remove(store);
  refused(3, text, store);
  write_file(store, whole);
  write_file(folder / "run.toml", text);
  EXPECT_EQ(run_binary({"train", folder / "run.toml"}).exit_code, 0);
}

// One line of 1 GB. The program may take no more than --memory and what it is made of: the limit on
// its data is the kernel's, so one byte too many ends it.
class HugeLine : public BadData, public testing::WithParamInterface<bool> {
 protected:
  static constexpr int64_t bytes = 1000000000;

  // Runs the words of a shell; what it prints is in printed().
  int run(const std::string& command) {
    return ChildProcess({"bash", "-c", command}, {.output = folder_ / "log"})
        .wait(std::chrono::seconds(300));
  }
  std::string printed() const { return read_file(folder_ / "log"); }

  // One line without its end.
  void write_line(const std::string& path) {
    std::string block;
    while (block.size() < 1000000) block += "the cat sat on the mat and ";
    block.resize(1000000);
    std::ofstream file(path, std::ios::binary);
    for (int64_t i = 0; i < bytes / 1000000; ++i) file << block;
  }
};

TEST_P(HugeLine, PassesInTheStatedMemory) {
  const bool from_file = GetParam();
  const std::string input = from_file ? folder_ / "huge.txt" : "-";
  if (from_file) write_line(input);
  const std::string limit = SHOESTRING_MEMORY_LIMITS ? cat("ulimit -d ", (64 + 64) << 10) : ":";
  if (!SHOESTRING_MEMORY_LIMITS) std::printf("a sanitizer: without a limit on memory\n");
  const std::string pack = cat("(", limit, "; exec ", binary_path(), " data pack ", input,
                               " --split lines --memory 64M --threads 2 --tokenizer ", tokenizer_,
                               " --out ", out_, " --quiet)");
  const std::string source =
      cat("yes 'the cat sat on the mat and ' | tr -d '\\n' | head -c ", bytes);
  EXPECT_EQ(run(from_file ? pack : cat(source, " | ", pack)), 0) << printed();
  EXPECT_NE(printed().find("1 document,"), std::string::npos) << printed();
  const auto store = TokenStore::open(out_);
  EXPECT_EQ(store->documents(), 1);
  EXPECT_EQ(store->document_bytes(0), bytes);
  std::vector<int32_t> end(10);
  store->read(store->tokens() - 10, 10, end.data());
  const std::string text = Tokenizer::load(tokenizer_).decode(end);
  EXPECT_NE(text.find("on the mat"), std::string::npos) << text;
}

INSTANTIATE_TEST_SUITE_P(From, HugeLine, testing::Bool(),
                         [](const auto& info) { return info.param ? "File" : "Pipe"; });

}  // namespace
}  // namespace shoestring

#include "launcher/eval_command.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/launcher/training_fixture.h"
#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

class EvalCommand : public testing::Test {
 protected:
  EvalCommand() {
    config_ = text_config(folder_);
    train_small(config_);
    write_file(folder_ / "a.txt", "Sir Walter Elliot, of Kellynch Hall, in Somersetshire.");
    write_file(folder_ / "b.jsonl",
               "{\"text\": \"Anne\"}\n{\"text\": \"Lady Russell was there.\"}\n");
  }
  std::vector<FileLoss> evaluate(const EvalOptions& options) {
    LoadedModel loaded(options.model);
    return evaluate_files(loaded, options);
  }
  EvalOptions options(std::vector<std::string> files) const {
    EvalOptions o;
    o.model.path = config_.run.directory;
    o.model.threads = 1;
    o.files = std::move(files);
    return o;
  }
  ScratchFolder folder_;
  RunConfig config_;
};

TEST_F(EvalCommand, PredictsEveryTokenOnce) {
  const auto losses = evaluate(options({folder_ / "a.txt", folder_ / "b.jsonl"}));
  ASSERT_EQ(losses.size(), 2u);
  const Tokenizer t = Tokenizer::load(config_.tokenizer);
  const std::string text = read_file(folder_ / "a.txt");
  EXPECT_EQ(losses[0].documents, 1);
  EXPECT_EQ(losses[0].sums.labels, static_cast<int64_t>(t.encode(text).size()));
  EXPECT_EQ(losses[0].sums.bytes, static_cast<int64_t>(text.size()));
  EXPECT_EQ(losses[1].documents, 2);
  EXPECT_EQ(losses[1].sums.bytes, 4 + 23);
  EXPECT_NEAR(losses[0].sums.mean(), std::log(512.0), 0.5);
}

TEST_F(EvalCommand, TheSizeOfAMicroBatchChangesNothingMuch) {
  EvalOptions one = options({folder_ / "a.txt", folder_ / "b.jsonl"});
  one.length = 8;
  one.micro_batch = 1;
  EvalOptions many = one;
  many.micro_batch = 16;
  const auto a = evaluate(one), b = evaluate(many);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].sums.labels, b[i].sums.labels);
    EXPECT_NEAR(a[i].sums.loss, b[i].sums.loss, 1e-5 * a[i].sums.loss);
  }
}

// A document of several pieces (of 1 MiB) is predicted as one: rows are cut as if it were whole.
TEST_F(EvalCommand, ALongDocumentIsStreamed) {
  std::string text;
  for (int i = 0; text.size() < (1 << 20) + 5000; ++i) append(text, "Anne had ", i, " letters. ");
  write_file(folder_ / "long.txt", text);
  EvalOptions o = options({folder_ / "long.txt"});
  o.length = 64;
  o.micro_batch = 64;
  const auto losses = evaluate(o);
  const size_t tokens = Tokenizer::load(config_.tokenizer).encode(text).size();
  EXPECT_EQ(losses[0].documents, 1);
  EXPECT_EQ(losses[0].sums.labels, static_cast<int64_t>(tokens));
  EXPECT_EQ(losses[0].sums.bytes, static_cast<int64_t>(text.size()));
}

TEST_F(EvalCommand, RefusesSizesThatDoNotFit) {
  EvalOptions o = options({folder_ / "a.txt"});
  o.length = 65;
  expect_error(ExitCode::usage, {"--length 65", "64"}, [&] { evaluate(o); });
  for (const int64_t length : {0, -5}) {
    o.length = length;
    expect_error(ExitCode::usage, {"--length must be at least 1"}, [&] { evaluate(o); });
  }
  o.length = {};
  for (const int64_t rows : {int64_t{0}, int64_t{100'000'000'000}}) {
    o.micro_batch = rows;
    expect_error(ExitCode::usage, {"--micro-batch must be from 1 to"}, [&] { evaluate(o); });
  }
}

TEST_F(EvalCommand, PrintsATableOrJson) {
  const std::vector<std::string> command = {"eval", "--model", config_.run.directory,
                                            folder_ / "a.txt"};
  const BinaryResult table = run_binary(command);
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_NE(table.out.find("bits_per_byte"), std::string::npos);
  std::vector<std::string> json = command;
  json.push_back("--json");
  const BinaryResult printed = run_binary(json);
  std::map<std::string, double> values;
  for (const auto& row : nlohmann::json::parse(printed.out)) {
    values[row.at("name")] = row.at("value");
  }
  EXPECT_NEAR(values.at("perplexity"), std::exp(values.at("loss")), 1e-6 * values.at("perplexity"));
  EXPECT_EQ(values.at("documents"), 1);
  const BinaryResult missing =
      run_binary({"eval", "--model", config_.run.directory, "nothing.txt"});
  EXPECT_NE(missing.exit_code, 0);
  EXPECT_NE(missing.err.find("nothing.txt"), std::string::npos) << missing.err;
}

}  // namespace
}  // namespace shoestring

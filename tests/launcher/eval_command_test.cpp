#include "launcher/eval_command.h"

#include <cmath>
#include <fstream>
#include <numbers>

#include "tests/launcher/text_model_fixture.h"

namespace shoestring {
namespace {

TEST(EvalCommand, EveryTokenCountsOnceAndBytesAreTheTexts) {
  const ScratchFolder folder;
  const std::string text = "Anne was one of the most regretful and sad. Captain Wentworth was not.";
  std::ofstream(folder / "a.txt") << text;
  std::ofstream(folder / "b.txt") << text;
  EvalOptions options{.model = {.path = train_text_model(folder), .threads = 1},
                      .files = {folder / "a.txt", folder / "b.txt"},
                      .length = 16};
  LoadedModel model(options.model);
  const auto tokens = static_cast<int64_t>(model.need_tokenizer().encode(text).size());
  const std::vector<FileLoss> losses = evaluate_files(model, options);
  ASSERT_EQ(losses.size(), 2u);
  EXPECT_EQ(losses[0].sums.labels, tokens);
  EXPECT_EQ(losses[0].sums.bytes, static_cast<int64_t>(text.size()));
  EXPECT_EQ(losses[0].documents, 1);
  EXPECT_EQ(losses[0].sums.loss, losses[1].sums.loss);
  EXPECT_GT(losses[0].sums.mean(), 1);
  EXPECT_LT(losses[0].sums.mean(), 10);
  EXPECT_DOUBLE_EQ(losses[0].sums.bits_per_byte(),
                   losses[0].sums.loss / std::numbers::ln2 / static_cast<double>(text.size()));
  options.micro_batch = 1;  // how rows are grouped changes nothing
  EXPECT_NEAR(evaluate_files(model, options)[0].sums.loss, losses[0].sums.loss, 1e-3);
}

TEST(EvalCommand, ImpossibleLengthsAreUsageErrors) {
  const ScratchFolder folder;
  std::ofstream(folder / "a.txt") << "Anne";
  EvalOptions options{.model = {.path = train_text_model(folder), .threads = 1},
                      .files = {folder / "a.txt"},
                      .length = 100000};
  EXPECT_THROW(run_eval(options), Error);
  options.length = 0;
  options.files = {folder / "missing.txt"};
  EXPECT_THROW(run_eval(options), Error);
}

}  // namespace
}  // namespace shoestring

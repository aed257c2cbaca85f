#include "launcher/model_card.h"

#include <gtest/gtest.h>

#include "tests/launcher/folder_model_fixture.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in\n" << text;
  }
}

TEST(ModelCard, SaysWhatOnWhatAndForHowMuch) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.cost.price_per_hour = 3.5;
  config.cost.currency = "EUR";
  train_small(config);
  ModelCard card{.name = "small", .summary = read_file(config.run.directory + "/summary.json")};
  card.exported.model = config.model;
  const ModelSource source(config.run.directory);
  const std::string text = model_card_text(source, card);
  expect_parts(text,
               {"library_name: transformers", "# small", "| family | llama |", "| weights | f32 |",
                "| steps | 8 |", "| tokens | 1024 |", "| validation loss, nats a token |",
                "EUR an hour", "- first, weight 1 (first.h5)", "from_pretrained"});
  // Figures of another step say nothing about this one.
  card.summary = R"({"steps": 9, "validation_loss": 1.0})";
  EXPECT_EQ(model_card_text(source, card).find("validation loss"), std::string::npos);
  card.summary = "broken";
  EXPECT_EQ(model_card_text(source, card).find("validation loss"), std::string::npos);
}

TEST(ModelCard, OfAConvertedModelClaimsNoTraining) {
  const ModelSource source(golden_folder("deepseek_v3_fp8"));
  ModelCard card{.name = "deep", .exported = source.folder()->config()};
  card.exported.blocks = {.rows = 128, .columns = 128};
  const std::string text = model_card_text(source, card);
  expect_parts(text, {"not trained further", "latent attention", "8, 2 chosen, 1 shared",
                      "FP8 E4M3 in blocks of 128 x 128"});
  EXPECT_EQ(text.find("## Training"), std::string::npos);
}

}  // namespace
}  // namespace shoestring

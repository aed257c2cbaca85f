#include "launcher/model_card.h"

#include <gtest/gtest.h>

#include "core/model/parameters.h"
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

// Of the folder, not of the run that it comes from.
TEST(ModelCard, CountsThePredictionModulesThatAreThere) {
  const ModelSource source(golden_folder("deepseek_v3_mtp"));
  const ModelConfig model = source.model();
  const ParamCounts counts = count_parameters(model);
  ModelCard card{.name = "deep", .exported = source.folder()->config()};
  expect_parts(model_card_text(source, card),
               {cat("| parameters | ", counts.total + counts.prediction, " |"),
                cat("| prediction modules | ", model.mtp.depth, ", with ", counts.prediction,
                    " of the parameters |"),
                cat("| active for a token | ", counts.active, ", without the prediction")});
  card.exported.model.mtp.depth = 0;
  expect_parts(model_card_text(source, card),
               {cat("| parameters | ", counts.total, " |"),
                cat("| active for a token | ", counts.active, " |"),
                cat("| prediction modules | ", model.mtp.depth, " trained, left out")});
}

// A run whose matrices fall back at the first comparison.
TEST(ModelCard, SaysThePrecisionAndWhatLeftIt) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 2;
  config.train.dtype = "bf16";
  config.precision.recipe = "deepseek_v3";
  config.precision.first_layers_bf16 = 0;
  config.precision.last_layers_bf16 = 0;
  fill_in(config);
  const auto card_of = [&] {
    const ModelSource source(config.run.directory);
    ModelCard card{.name = "small"};
    card.exported.model = config.model;
    return model_card_text(source, card);
  };
  train_small(config);
  const std::string plain = card_of();
  expect_parts(plain, {"| compute type | bf16, matrix products in FP8 |",
                       "| precision recipe | deepseek_v3 |"});
  EXPECT_EQ(plain.find("watchdog"), std::string::npos);  // it was off
  config.run.directory = folder / "watched";
  config.precision.watchdog.every = 1;
  config.precision.watchdog.strikes = 1;
  config.precision.watchdog.limit = 1e-6;
  train_small(config);
  const ModelSource source(config.run.directory);
  const std::vector<std::string> fallen = source.fallen_matrices();
  ASSERT_GT(fallen.size(), 3u);
  const std::string row =
      cat("| put back to bf16 by the watchdog | ", fallen.size(), " matrices: ", fallen[0], ", ");
  expect_parts(card_of(), {row});
  // They stay so when nobody watches any longer.
  config.precision.watchdog.every = 0;
  config.train.steps = 3;
  train_small(config);
  expect_parts(card_of(), {row, "| steps | 3 |"});
}

}  // namespace
}  // namespace shoestring

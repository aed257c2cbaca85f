#include "launcher/generate_command.h"

#include "tests/launcher/text_model_fixture.h"

namespace shoestring {
namespace {

TEST(GenerateCommand, PrintsThePromptWithItsTextOrJson) {
  const ScratchFolder folder;
  GenerateOptions options{.model = {.path = train_text_model(folder), .threads = 1},
                          .request = {.prompts = {"Anne"}, .max_tokens = 8, .stop = {}}};
  ::testing::internal::CaptureStdout();
  run_generate(options);
  const std::string text = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(text.rfind("Anne", 0), 0u);
  options.json = true;
  ::testing::internal::CaptureStdout();
  run_generate(options);
  const auto json = nlohmann::json::parse(::testing::internal::GetCapturedStdout());
  EXPECT_EQ(json["outputs"][0]["prompt"], "Anne");
  EXPECT_EQ(json["tokens"], 8);
  EXPECT_EQ(json["outputs"][0]["ids"].size(), 8u);
}

}  // namespace
}  // namespace shoestring

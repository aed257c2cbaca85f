#include "launcher/data_mix_command.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "core/text.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

using Json = nlohmann::json;

TEST(DataMixCommand, ForecastsSharesAndEpochs) {
  ScratchFolder folder;
  make_store(folder / "a.h5", std::vector<std::vector<int32_t>>(10, std::vector<int32_t>(100, 1)),
             plain_facts());
  make_store(folder / "b.h5", {std::vector<int32_t>(4001, 2)}, plain_facts());
  write_file(folder / "run.toml",
             cat("[train]\nsteps = 10\nbatch = 4\nmicro_batch = 2\nsequence_length = 20\n"
                 "[data]\nheld_out = 0\n[[data.sources]]\nname = \"small\"\npath = \"",
                 folder / "a.h5", "\"\nweight = 3\n[[data.sources]]\nname = \"large\"\npath = \"",
                 folder / "b.h5", "\"\n[[stages]]\nfrom_tokens = 400\nweights = [0, 1]\n"));
  const DataMixOptions options{.config = folder / "run.toml", .json = true};
  const Json json = Json::parse(data_mix(options));
  // 20 samples of the first mixture, 20 of the second source alone.
  EXPECT_EQ(json["tokens"], 800);
  ASSERT_EQ(json["sources"].size(), 2u);
  EXPECT_EQ(json["sources"][0]["name"], "small");
  EXPECT_EQ(json["sources"][0]["tokens_drawn"], 15 * 20.0);
  EXPECT_EQ(json["sources"][1]["tokens_drawn"], 25 * 20.0);
  EXPECT_DOUBLE_EQ(json["sources"][0]["epochs"], 15.0 / 49);  // (1000 - 1) / 20 blocks
  EXPECT_DOUBLE_EQ(json["sources"][1]["epochs"], 25.0 / 200);
  DataMixOptions longer = options;
  longer.tokens = 1601;
  EXPECT_EQ(Json::parse(data_mix(longer))["steps"], 21);
  longer.json = false;
  const std::string text = data_mix(longer);
  EXPECT_NE(text.find("small"), std::string::npos) << text;
  EXPECT_NE(text.find("epochs"), std::string::npos) << text;
}

TEST(DataMixCommand, RefusesWhatCannotTrain) {
  ScratchFolder folder;
  make_store(folder / "a.h5", {{1, 2, 3}}, plain_facts());
  const auto with = [&](const std::string& source) {
    write_file(folder / "run.toml", cat("[data]\nheld_out = 0\n", source));
    return DataMixOptions{.config = folder / "run.toml"};
  };
  expect_error(ExitCode::usage, {"data.sources: is empty", "data.sources"},
               [&] { data_mix(with("")); });
  const std::string source = cat("[[data.sources]]\npath = \"", folder / "a.h5", "\"\n");
  expect_error(ExitCode::usage, {"too few for a row"}, [&] { data_mix(with(source)); });
  expect_error(ExitCode::usage, {"no source has a weight"},
               [&] { data_mix(with(source + "weight = 0\n")); });
  DataMixOptions negative = with(source);
  negative.tokens = -5;
  expect_error(ExitCode::usage, {"--tokens -5"}, [&] { data_mix(negative); });
}

TEST(DataMixCommand, TakesTokensAsPeopleWriteThem) {
  EXPECT_EQ(parse_tokens("1000000"), 1'000'000);
  EXPECT_EQ(parse_tokens("1e6"), 1'000'000);
  EXPECT_EQ(parse_tokens("2.5E9"), 2'500'000'000);
  EXPECT_EQ(parse_tokens("9223372036854775807"), std::numeric_limits<int64_t>::max());
  for (const char* bad : {"", "0", "-1", "0.5", "1.5", "1e-3", "1e6x", "1M", "nan", "inf", "1e300",
                          "9223372036854775808000"}) {
    expect_error(ExitCode::usage, {cat("--tokens ", bad, ":").c_str(), "2.5e9"},
                 [&] { parse_tokens(bad); });
  }
}

}  // namespace
}  // namespace shoestring

#include "io/hugging_face/read_rope.h"

#include <gtest/gtest.h>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

RopeConfig read(const std::string& json) {
  return read_rope(ConfigKeys(json, "config.json"), 1e4, 4096);
}

TEST(ReadRope, KnowsBothConventions) {
  EXPECT_DOUBLE_EQ(read("{}").theta, 1e4);
  EXPECT_EQ(read("{}").scaling, "none");
  EXPECT_DOUBLE_EQ(read(R"({"rope_theta": 500000})").theta, 5e5);
  const RopeConfig old =
      read(R"({"rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 4}})");
  EXPECT_EQ(old.scaling, "linear");
  EXPECT_DOUBLE_EQ(old.factor, 4);
  EXPECT_DOUBLE_EQ(old.theta, 5e5);
  const RopeConfig now = read(
      R"({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0}})");
  EXPECT_EQ(now.scaling, "linear");
  EXPECT_DOUBLE_EQ(now.theta, 5e5);
  EXPECT_EQ(read(R"({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}})").theta, 7);
}

TEST(ReadRope, ChoosesAsTransformersDoes) {
  // rope_scaling replaces rope_parameters, theta included.
  const RopeConfig both = read(
      R"({"rope_theta": 50.0, "rope_scaling": {"rope_type": "linear", "factor": 2},
          "rope_parameters": {"rope_type": "linear", "factor": 8, "rope_theta": 70.0}})");
  EXPECT_DOUBLE_EQ(both.factor, 2);
  EXPECT_DOUBLE_EQ(both.theta, 50);
  // A null one does not; and the theta inside wins.
  const RopeConfig inner = read(
      R"({"rope_theta": 50.0, "rope_scaling": null,
          "rope_parameters": {"rope_type": "default", "rope_theta": 70.0}})");
  EXPECT_DOUBLE_EQ(inner.theta, 70);
}

TEST(ReadRope, ReadsLlama3AndYarn) {
  const RopeConfig llama = read(
      R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})");
  EXPECT_EQ(llama.scaling, "llama3");
  EXPECT_EQ(llama.original_max_positions, 8192);
  EXPECT_DOUBLE_EQ(llama.high_freq_factor, 4);
  const RopeConfig yarn = read(
      R"({"rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.7,
          "beta_fast": 16, "beta_slow": 2, "original_max_position_embeddings": 2048}})");
  EXPECT_DOUBLE_EQ(yarn.mscale, 0.707);
  EXPECT_DOUBLE_EQ(yarn.mscale_all_dim, 0.7);
  EXPECT_DOUBLE_EQ(yarn.beta_fast, 16);
  EXPECT_DOUBLE_EQ(yarn.attention_factor, 0);
  // What follows from the lengths.
  const RopeConfig derived = read(
      R"({"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 1024,
          "attention_factor": 1.2}})");
  EXPECT_DOUBLE_EQ(derived.factor, 4);
  EXPECT_DOUBLE_EQ(derived.attention_factor, 1.2);
  EXPECT_EQ(read(R"({"rope_scaling": {"type": "yarn", "factor": 2}})").original_max_positions,
            4096);
}

TEST(ReadRope, RefusesTheRest) {
  auto refused = [](const std::string& json, const std::string& part) {
    expect_error(ExitCode::data, {"config.json", part}, [&] { read(json); });
  };
  refused(R"({"rope_scaling": {"type": "longrope"}})", "rope_scaling.type");
  refused(R"({"rope_parameters": {"rope_type": "dynamic"}})", "rope_parameters.rope_type");
  refused(R"({"rope_parameters": {"rope_type": 3}})", "rope_parameters.rope_type");
  refused(R"({"rope_scaling": "linear"})", "rope_scaling");
  refused(R"({"rope_scaling": {"type": "linear"}})", "factor");
  refused(R"({"rope_scaling": {"type": "linear", "factor": 0.5}})", "factor");
  refused(R"({"rope_scaling": {"type": "llama3", "factor": 8}})", "low_freq_factor");
  refused(R"({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4,
              "high_freq_factor": 4}})",
          "high_freq_factor");
  refused(R"({"rope_scaling": {"type": "yarn"}})", "\"rope_scaling.factor\" is missing");
  refused(R"({"rope_scaling": {"type": "yarn", "factor": null, "mscale": 1}})", "factor");
  refused(R"({"rope_scaling": {"type": "yarn", "factor": 8, "beta_fast": 1}})", "beta_fast");
  refused(R"({"rope_scaling": {"type": "yarn", "factor": 8, "truncate": false}})", "truncate");
  refused(R"({"rope_theta": 0})", "rope_theta");
  refused(R"({"rope_theta": "big"})", "rope_theta");
  refused(R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})",
          "partial_rotary_factor");
}

}  // namespace
}  // namespace shoestring

#include "io/hugging_face/save.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "io/safetensors_shards.h"
#include "tests/io/hugging_face/folder_fixture.h"

namespace shoestring {
namespace {

TEST(SaveHuggingFace, CutsIntoShardsWithAnIndex) {
  const ScratchFolder whole, cut;
  HuggingFaceExport model = small_export(ModelFamily::llama);
  save_hugging_face(model, whole.path());
  EXPECT_FALSE(std::filesystem::exists(whole / "model.safetensors.index.json"));
  model.shard_bytes = 9000;
  save_hugging_face(model, cut.path());
  const auto index = nlohmann::json::parse(read_file(cut / "model.safetensors.index.json"));
  const SafetensorsShards one(whole.path()), many(cut.path());
  EXPECT_EQ(one.names(), many.names());
  EXPECT_EQ(index["weight_map"].size(), many.names().size());
  uint64_t total = 0;
  std::set<std::string> files;
  for (const std::string& name : one.names()) {
    const SafetensorsEntry& entry = many.entry(name);
    total += entry.end - entry.begin;
    files.insert(index["weight_map"][name].get<std::string>());
    EXPECT_EQ(entry.type, one.entry(name).type);
    std::vector<float> a(static_cast<size_t>(entry.elements())), b = a;
    one.read(name, 0, entry.elements(), Dtype::f32, reinterpret_cast<std::byte*>(a.data()));
    many.read(name, 0, entry.elements(), Dtype::f32, reinterpret_cast<std::byte*>(b.data()));
    EXPECT_EQ(a, b) << name;
  }
  EXPECT_EQ(index["metadata"]["total_size"], total);
  EXPECT_GT(files.size(), 3u);
  const auto count = static_cast<size_t>(std::distance(
      std::filesystem::directory_iterator(cut.path()), std::filesystem::directory_iterator()));
  EXPECT_EQ(count, files.size() + 3);  // index, config and generation config
  for (const std::string& file : files) {
    EXPECT_LE(std::filesystem::file_size(cut / file), 9000u + 3000u) << file;
  }
}

TEST(SaveHuggingFace, WritesF32AndTheModulesCopies) {
  const ScratchFolder folder;
  HuggingFaceExport model = small_export(ModelFamily::deepseek_v3);
  model.config.dtype = Dtype::f32;
  save_hugging_face(model, folder.path());
  const SafetensorsShards shards(folder.path());
  for (const std::string& name : shards.names()) EXPECT_EQ(shards.entry(name).type, "F32") << name;
  float copy = 0;
  shards.read("model.layers.2.shared_head.head.weight", 17, 18, Dtype::f32,
              reinterpret_cast<std::byte*>(&copy));
  EXPECT_EQ(copy, weight_at("head.weight", 17));
}

TEST(SaveHuggingFace, RefusesBlocksOfWhatIsNoNumber) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY}) {
    const ScratchFolder folder;
    HuggingFaceExport model = small_export(ModelFamily::llama);
    model.config.blocks = {.rows = 16, .columns = 16};
    model.read = [bad](const std::string& parameter, int64_t begin, int64_t end, float* out) {
      read_weights(parameter, begin, end, out);
      const int64_t at = 700;
      if (parameter == "layers.1.attention.output.weight" && begin <= at && at < end) {
        out[at - begin] = bad;
      }
    };
    expect_error(ExitCode::data, {"model.layers.1.self_attn.o_proj.weight", "element 700", "--fp8"},
                 [&] { save_hugging_face(model, folder.path()); });
  }
}

// As transformers saves and expects them.
TEST(SaveHuggingFace, WritesSharedExpertsWithoutElements) {
  for (const ModelFamily family : {ModelFamily::deepseek_v2, ModelFamily::deepseek_v3}) {
    for (const bool fp8 : {false, true}) {
      const ScratchFolder folder;
      HuggingFaceExport model = small_export(family);
      model.config.model.moe.shared = 0;
      if (fp8) model.config.blocks = {.rows = 16, .columns = 16};
      save_hugging_face(model, folder.path());
      const SafetensorsShards shards(folder.path());
      const std::string at = "model.layers.1.mlp.shared_experts.";
      EXPECT_EQ(shards.entry(at + "gate_proj.weight").shape, (std::vector<int64_t>{0, 32}));
      EXPECT_EQ(shards.entry(at + "up_proj.weight").shape, (std::vector<int64_t>{0, 32}));
      EXPECT_EQ(shards.entry(at + "down_proj.weight").shape, (std::vector<int64_t>{32, 0}));
      EXPECT_FALSE(shards.has("model.layers.0.mlp.shared_experts.up_proj.weight")) << "dense";
    }
  }
}

TEST(SaveHuggingFace, LeavesATiedHeadOut) {
  const ScratchFolder folder;
  save_hugging_face(small_export(ModelFamily::qwen2), folder.path());
  EXPECT_FALSE(SafetensorsShards(folder.path()).has("lm_head.weight"));
}

}  // namespace
}  // namespace shoestring

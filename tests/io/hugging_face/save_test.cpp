#include "io/hugging_face/save.h"

#include <gtest/gtest.h>

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

TEST(SaveHuggingFace, LeavesATiedHeadOut) {
  const ScratchFolder folder;
  save_hugging_face(small_export(ModelFamily::qwen2), folder.path());
  EXPECT_FALSE(SafetensorsShards(folder.path()).has("lm_head.weight"));
}

}  // namespace
}  // namespace shoestring

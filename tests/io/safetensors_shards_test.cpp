#include "io/safetensors_shards.h"

#include <gtest/gtest.h>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

// The kernel's high-water mark since forget_peak().
void forget_peak() { std::ofstream("/proc/self/clear_refs") << 5; }
int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  int64_t kib = 0;
  while (status >> word && word != "VmHWM:") {
  }
  status >> kib;
  return kib * 1024;
}

// A file of f32 tensors of three elements each, the first of which is `start`.
void write_tensors(const std::string& path, const std::vector<std::string>& names, float start) {
  std::vector<SafetensorsSpec> specs;
  for (const std::string& name : names) {
    specs.push_back({.name = name, .dtype = Dtype::f32, .shape = {3}});
  }
  SafetensorsWriter writer(path, specs);
  for (const std::string& name : names) {
    const float values[] = {start, start + 1, start + 2};
    writer.write(name, 0, 3, reinterpret_cast<const std::byte*>(values));
  }
  writer.finish();
}

float first_of(const SafetensorsShards& shards, const std::string& name) {
  float value = 0;
  shards.read(name, 0, 1, Dtype::f32, reinterpret_cast<std::byte*>(&value));
  return value;
}

constexpr const char* first = "model-00001-of-00002.safetensors";
constexpr const char* second = "model-00002-of-00002.safetensors";

// Two files, a and b in the first, c in the second, and an index with this map.
void make_folder_of_two(const ScratchFolder& folder, const std::string& map) {
  write_tensors(folder / first, {"a", "b"}, 1);
  write_tensors(folder / second, {"c"}, 10);
  write_file(folder / "model.safetensors.index.json",
             "{\"metadata\": {\"total_size\": 36}, \"weight_map\": " + map + "}");
}

std::string whole_map() {
  return cat("{\"a\": \"", first, "\", \"b\": \"", first, "\", \"c\": \"", second, "\"}");
}

TEST(SafetensorsShards, ReadsOneFileAndSeveral) {
  const ScratchFolder folder;
  make_folder_of_two(folder, whole_map());
  const SafetensorsShards shards(folder.path());
  EXPECT_EQ(shards.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(first_of(shards, "b"), 1);
  EXPECT_EQ(first_of(shards, "c"), 10);
  EXPECT_EQ(first_of(shards, "c"), 10) << "pages that were let go come back";
  EXPECT_TRUE(shards.has("a"));
  EXPECT_FALSE(shards.has("d"));
  expect_error(ExitCode::data, {"no tensor d"}, [&] { shards.entry("d"); });
  // A single file comes first.
  write_tensors(folder / "model.safetensors", {"z"}, 5);
  EXPECT_EQ(SafetensorsShards(folder.path()).names(), std::vector<std::string>{"z"});
}

TEST(SafetensorsShards, RefusesAnIndexThatDisagreesWithItsFiles) {
  const ScratchFolder folder;
  auto refused = [&](const std::string& map, const std::vector<std::string>& parts) {
    make_folder_of_two(folder, map);
    expect_error(ExitCode::data, parts, [&] { SafetensorsShards shards(folder.path()); });
  };
  const std::string f = cat("\"", first, "\""), s = cat("\"", second, "\"");
  refused(cat("{\"a\": ", f, ", \"b\": ", s, ", \"c\": ", s, "}"), {"not in their files", "b in"});
  refused(cat("{\"a\": ", f, ", \"c\": ", s, "}"), {"does not name", "b in"});
  refused(R"({"a": "../model-1.safetensors"})", {"index.json", "../model-1.safetensors"});
  refused(R"({"a": "/etc/passwd"})", {"/etc/passwd"});
  refused(R"({"a": "other.bin"})", {"other.bin"});
  refused(R"({"a": 3})", {"the file of a"});
  refused("{}", {"empty"});
  refused("[]", {"weight_map"});
  refused(R"({"a": "nowhere.safetensors"})", {"nowhere.safetensors"});
}

// As many names as it likes: they take no more memory than the text itself.
TEST(SafetensorsShards, AnIndexTakesNoMoreMemoryThanItsText) {
  const ScratchFolder folder;
  make_folder_of_two(folder, whole_map());
  std::string map = whole_map();
  map.pop_back();
  for (int i = 0; i < 300'000; ++i) append(map, ", \"tensor.", i, "\": \"", first, "\"");
  const std::string index = folder / "model.safetensors.index.json";
  write_file(index, "{\"weight_map\": " + map + "}}");
  const auto text_bytes = static_cast<int64_t>(std::exchange(map, "").size());
  forget_peak();
  const int64_t before = peak_resident_bytes();
  expect_error(ExitCode::data, {"not in their files", "tensor.0 in", "and 299980 more"},
               [&] { SafetensorsShards shards(folder.path()); });
  EXPECT_LT(peak_resident_bytes() - before, 3 * text_bytes) << text_bytes;
  // The first name of a file that is missing ends it.
  write_file(index, "{\"weight_map\": {\"a\": \"gone.safetensors\", this is no JSON");
  expect_error(ExitCode::data, {"gone.safetensors"},
               [&] { SafetensorsShards shards(folder.path()); });
}

TEST(SafetensorsShards, RefusesAnIndexOfAnotherShape) {
  const ScratchFolder folder;
  make_folder_of_two(folder, whole_map());
  auto refused = [&](const std::string& text, const std::string& part) {
    write_file(folder / "model.safetensors.index.json", text);
    expect_error(ExitCode::data, {"index.json", part},
                 [&] { SafetensorsShards shards(folder.path()); });
  };
  const std::string a = cat("\"a\": \"", first, "\""), map = cat("\"weight_map\": ", whole_map());
  refused("", "not valid JSON");
  refused("[1]", "no object \"weight_map\"");
  refused("{}", "no object \"weight_map\"");
  refused("{\"weight_map\": 3}", "no object \"weight_map\"");
  refused("{\"inner\": {" + map + "}}", "no object \"weight_map\"");
  refused("{" + map + ", " + map + "}", "\"weight_map\" is there twice");
  refused("{\"weight_map\": {" + a + ", " + a + "}}", "the key \"a\" twice");
  refused("{\"weight_map\": {\"a\": {" + a + "}}}", "the file of a is not a text");
  refused("{\"weight_map\": {\"a\": [" + cat("\"", first, "\"") + "]}}", "the file of a is not");
  refused("{" + map + ", \"x\": " + std::string(100, '['), "nested deeper");
  refused("{" + map + "} x", "not valid JSON");
}

TEST(SafetensorsShards, SaysWhatIsThereInstead) {
  const ScratchFolder folder;
  expect_error(ExitCode::data, {folder.path(), "model.safetensors.index.json"},
               [&] { SafetensorsShards shards(folder.path()); });
  write_file(folder / "pytorch_model.bin", "x");
  expect_error(ExitCode::data, {"pytorch_model.bin", "only safetensors"},
               [&] { SafetensorsShards shards(folder.path()); });
}

TEST(SafetensorsShards, SaysThatShardsNeedTheirIndex) {
  const ScratchFolder folder;
  make_folder_of_two(folder, whole_map());
  std::filesystem::remove(folder / "model.safetensors.index.json");
  expect_error(ExitCode::data,
               {folder.path(), "it holds model-00001-of-00002.safetensors and 1 more",
                "get model.safetensors.index.json"},
               [&] { SafetensorsShards shards(folder.path()); });
}

TEST(SafetensorsShards, NamesAndLists) {
  EXPECT_EQ(shard_name(0, 1), "model.safetensors");
  EXPECT_EQ(shard_name(1, 12), "model-00002-of-00012.safetensors");
  EXPECT_EQ(listed({"a", "b"}), "\n  a\n  b");
  EXPECT_EQ(listed({"a", "b", "c"}, 1), "\n  a\n  and 2 more");
}

}  // namespace
}  // namespace shoestring

// A folder of the size of Llama 3.1 70B passes within 4 GiB of memory: the files are holes but for
// a few marks, every tensor is read, and two layers are really written: as a checkpoint, and as
// folders of bf16 and of FP8 blocks by the export command.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/model/parameters.h"
#include "io/hugging_face/config_text.h"
#include "io/hugging_face/save.h"
#include "launcher/export_command.h"
#include "launcher/import_command.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

constexpr int64_t memory_limit = int64_t{4} << 30;
constexpr int64_t shard_bytes = 20'000'000'000;

ModelConfig llama_70b() {
  return {.layers = 80,
          .hidden = 8192,
          .ffn = 28672,
          .heads = 64,
          .kv_heads = 8,
          .vocabulary = 128256,
          .max_positions = 8192,
          .rope = {.theta = 500000}};
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// The largest resident size, looked at a hundred times a second.
class MemoryWatch {
 public:
  MemoryWatch()
      : thread_([this] {
          while (!done_) {
            most_ = std::max<int64_t>(most_, resident_bytes());
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
          }
        }) {}
  ~MemoryWatch() {
    done_ = true;
    thread_.join();
  }
  int64_t most() const { return most_; }

 private:
  std::atomic<bool> done_ = false;
  std::atomic<int64_t> most_ = 0;
  std::thread thread_;
};

// What stands at the first and last element of a tensor; zeros between.
float mark_of(const std::string& name) {
  return static_cast<float>(1 + std::hash<std::string>()(name) % 100);
}

// One file of bf16 tensors: its header, then a hole of their size with the marks.
void write_holes(const std::string& path, const std::vector<FolderTensor>& tensors) {
  std::string header = "{";
  int64_t at = 0;
  for (const FolderTensor& t : tensors) {
    append(header, header.size() > 1 ? "," : "", "\"", t.name,
           "\":{\"dtype\":\"BF16\",\"shape\":[");
    for (size_t i = 0; i < t.shape.size(); ++i) append(header, i > 0 ? "," : "", t.shape[i]);
    append(header, "],\"data_offsets\":[", at, ",", at + 2 * t.elements(), "]}");
    at += 2 * t.elements();
  }
  header += "}";
  const uint64_t length = header.size();
  DurableFile file(path, DurableFile::Mode::create);
  file.append(&length, sizeof length);
  file.append(header);
  const uint64_t data = file.size();
  file.truncate(data + static_cast<uint64_t>(at));
  uint64_t begin = data;
  for (const FolderTensor& t : tensors) {
    const BFloat16 mark(mark_of(t.name));
    const uint64_t end = begin + 2 * static_cast<uint64_t>(t.elements());
    file.write_at(begin, &mark, sizeof mark);
    file.write_at(end - sizeof mark, &mark, sizeof mark);
    begin = end;
  }
}

void make_huge_folder(const std::string& folder, const ModelConfig& model = llama_70b()) {
  const HuggingFaceConfig config{.model = model, .dtype = Dtype::bf16};
  write_text_file(folder + "/config.json", hugging_face_config_text(config));
  std::vector<std::vector<FolderTensor>> files(1);
  int64_t held = 0;
  for (FolderTensor& t : folder_tensors(ModelFamily::llama, config.model)) {
    if (held + 2 * t.elements() > shard_bytes) {
      files.emplace_back();
      held = 0;
    }
    held += 2 * t.elements();
    files.back().push_back(std::move(t));
  }
  std::string map;
  for (size_t i = 0; i < files.size(); ++i) {
    write_holes(cat(folder, "/", shard_name(i, files.size())), files[i]);
    for (const FolderTensor& t : files[i]) {
      append(map, map.empty() ? "" : ",", "\"", t.name, "\":\"", shard_name(i, files.size()), "\"");
    }
  }
  write_text_file(folder + "/model.safetensors.index.json", cat("{\"weight_map\":{", map, "}}"));
}

TEST(HugeFolder, PassesWithin4GiB) {
  const ScratchFolder scratch;
  make_huge_folder(scratch.path());
  const ModelSource source(scratch.path());
  const ModelConfig& model = source.config().model;
  EXPECT_EQ(count_parameters(model).total, 70553706496);
  const MemoryWatch watch;
  int64_t read = 0;
  std::vector<BFloat16> values(size_t{1} << 24);
  for (const FolderTensor& t : folder_tensors(ModelFamily::llama, model)) {
    for (int64_t at = 0; at < t.elements(); at += static_cast<int64_t>(values.size())) {
      const int64_t end = std::min(at + static_cast<int64_t>(values.size()), t.elements());
      source.read(t.parameter, t.begin + at, t.begin + end, Dtype::bf16,
                  reinterpret_cast<std::byte*>(values.data()));
      const auto count = static_cast<size_t>(end - at);
      if (at == 0) {
        EXPECT_EQ(static_cast<float>(values[0]), mark_of(t.name)) << t.name;
      }
      if (end == t.elements()) {
        EXPECT_EQ(static_cast<float>(values[count - 1]), mark_of(t.name)) << t.name;
      }
      EXPECT_EQ(values[count / 2].bits, 0) << t.name;
      read += static_cast<int64_t>(count);
    }
  }
  EXPECT_EQ(read, 70553706496);
  EXPECT_LT(watch.most(), memory_limit);
}

TEST(HugeFolder, LayersAreWrittenWithin4GiB) {
  const ScratchFolder scratch;
  make_huge_folder(scratch.path());
  const MemoryWatch watch;
  const ModelSource source(scratch.path());
  const ModelConfig& model = source.config().model;
  const auto parameters = parameters_of(
      model, {.first_block = 78, .last_block = 80, .embedding = false, .head = false});
  save_imported(source, parameters, source.config(), scratch / "checkpoints");
  const Checkpoint checkpoint = Checkpoint::open(scratch / "checkpoints");
  ASSERT_EQ(checkpoint.names().size(), parameters.size());
  for (const FolderTensor& t : folder_tensors(ModelFamily::llama, model)) {
    const std::string name = cat("model/", t.parameter);
    if (!checkpoint.has(name)) continue;
    float value = 0;
    const int64_t last = t.begin + t.elements() - 1;
    checkpoint.read(name, last, last + 1, Dtype::f32, reinterpret_cast<std::byte*>(&value));
    EXPECT_EQ(value, mark_of(t.name)) << t.name;
  }
  EXPECT_LT(watch.most(), memory_limit);
}

// The last element of each tensor of an export, as it is read here.
void expect_marks(const std::string& folder) {
  const ModelSource source(folder);
  for (const FolderTensor& t : folder_tensors(ModelFamily::llama, source.config().model)) {
    float value = 0;
    const int64_t last = t.begin + t.elements() - 1;
    source.read(t.parameter, last, last + 1, Dtype::f32, reinterpret_cast<std::byte*>(&value));
    EXPECT_FLOAT_EQ(value, mark_of(t.name)) << t.name;
  }
}

// Far below one matrix in f32, which is 0.94 GB: neither writer may hold a whole one.
TEST(HugeFolder, LayersAreExportedInPieces) {
  ModelConfig model = llama_70b();
  model.layers = 2;
  model.vocabulary = 1024;  // the layers are meant; their matrices are the wide ones
  const ScratchFolder scratch;
  const std::string from = scratch / "from", out = scratch / "out";
  std::filesystem::create_directory(from);
  make_huge_folder(from, model);
  for (const bool fp8 : {false, true}) {
    const int64_t before = resident_bytes();
    int64_t most = 0;
    {
      const MemoryWatch watch;
      run_export({.model = from, .out = out, .dtype = "bf16", .fp8 = fp8, .shard_size = "1GB"});
      most = watch.most();
    }
    std::printf("%s: %.0f MB above the beginning\n", fp8 ? "FP8" : "bf16",
                static_cast<double>(most - before) / 1e6);
    EXPECT_LT(most, memory_limit);
    const int64_t piece = int64_t{28672} * 8192 * 4 / 2;
    EXPECT_TRUE(!SHOESTRING_MEMORY_LIMITS || most - before < piece) << most - before;
    const HuggingFaceFolder written(out);
    EXPECT_EQ(written.has_codes("layers.1.mlp.down.weight"), fp8);
    EXPECT_EQ(written.has_codes("layers.0.attention.qkv.weight"), fp8);
    expect_marks(out);
    std::filesystem::remove_all(out);
  }
}

}  // namespace
}  // namespace shoestring

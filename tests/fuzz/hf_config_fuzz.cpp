// Hugging Face folders: the first byte of an input says whether the rest is a config.json alone, or
// a config and, after zero bytes, the header and the data of the weights beside it.

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/model/parameters.h"
#include "core/text.h"
#include "io/hugging_face/config_text.h"
#include "io/hugging_face/family.h"
#include "io/hugging_face/folder.h"
#include "io/hugging_face/save.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/io/hugging_face/model_fields.h"

using namespace shoestring;

namespace {

class Scratch {
 public:
  Scratch() : path_(cat("/dev/shm/hf_config_fuzz.", ::getpid())) {
    std::filesystem::create_directories(path_);
  }
  ~Scratch() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void require_same(const HuggingFaceConfig& wrote, const HuggingFaceConfig& read) {
  const std::string left = carried_fields(wrote.model), right = carried_fields(read.model);
  if (left != right) {
    fail(cat("a model changed on its way out and in:\n", left, "\nbecame\n", right));
  }
  check(wrote.family == read.family, "a family changed on its way out and in");
  check(wrote.dtype == read.dtype && wrote.blocks.rows == read.blocks.rows &&
            wrote.blocks.columns == read.blocks.columns && wrote.begin_ids == read.begin_ids &&
            wrote.end_ids == read.end_ids,
        "a config changed on its way out and in");
}

bool is_small(const ModelConfig& m) {
  constexpr int64_t most = 1024;
  for (const int64_t width : {m.hidden, m.ffn, m.vocabulary, m.heads, m.head_dim, m.mla.kv_latent,
                              m.mla.q_latent, m.mla.qk_dim(), m.mla.v_dim, m.moe.ffn}) {
    if (width > most) return false;
  }
  if (m.moe.shared > most || m.moe.experts > most || count_folder_tensors(m) > most) return false;
  double elements = 0;
  for (const ParamInfo& p : parameters_of(m, whole_model(m))) {
    elements += static_cast<double>(p.shape.elements());
  }
  return elements < 1e6;
}

// The folder that is made of a model is one that is read, as that model.
void save_and_open(HuggingFaceConfig config) {
  const Scratch scratch;
  const std::string& folder = scratch.path();
  config.dtype = Dtype::bf16;
  config.blocks = {};
  const auto ones = [](const std::string&, int64_t begin, int64_t end, float* out) {
    std::fill(out, out + (end - begin), 1.0f);
  };
  save_hugging_face({.config = config, .read = ones}, folder);
  require_same(config, HuggingFaceFolder(folder).config());
}

// What is read can be written, and reads as the same again.
void round_trip(HuggingFaceConfig config) {
  // FP8 lists the modules that it leaves out, which an invented model has too many of.
  if (count_folder_tensors(config.model) > 100'000) config.blocks = {};
  try {
    config.family = family_of(config.model);
    require_same(config, parse_hugging_face_config(hugging_face_config_text(config), "again"));
  } catch (const Error& error) {
    if (error.code() != ExitCode::usage) throw;  // a model of no family
    return;
  }
  if (is_small(config.model)) save_and_open(config);
}

// A data error is the reader's answer to bad input only.
void read_and_write(std::string_view json) {
  const HuggingFaceConfig config = parse_hugging_face_config(json, "config.json");
  HuggingFaceConfig dense = config;
  dense.model.moe.experts = 0;  // what else the section says is of none
  try {
    round_trip(config);
    round_trip(dense);
  } catch (const Error& error) {
    fail(cat("what was read cannot be written and read again: ", error.what()));
  }
}

std::string_view cut(std::string_view& input) {
  const size_t end = std::min(input.find('\0'), input.size());
  const std::string_view part = input.substr(0, end);
  input.remove_prefix(std::min(end + 1, input.size()));
  return part;
}

void write(const std::string& path, std::string_view first, std::string_view second = {}) {
  std::ofstream file(path, std::ios::binary);
  file << first << second;
}

void open_folder(std::string_view input) {
  const Scratch scratch;
  const std::string& folder = scratch.path();
  write(folder + "/config.json", cut(input));
  const std::string_view header = cut(input);
  const uint64_t length = header.size();
  std::string start(sizeof length, '\0');
  std::memcpy(start.data(), &length, sizeof length);
  write(folder + "/model.safetensors", start + std::string(header), input);
  const HuggingFaceFolder model(folder);
  const ModelConfig& config = model.config().model;
  for (const ParamInfo& p : parameters_of(config, whole_model(config))) {
    std::vector<float> values(static_cast<size_t>(p.shape.elements()));
    model.read(p.name, 0, p.shape.elements(), Dtype::f32,
               reinterpret_cast<std::byte*>(values.data()));
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    if (input[0] & 1) {
      read_and_write(input.substr(1));
    } else {
      open_folder(input.substr(1));
    }
  } catch (const Error& error) {
    if (error.code() != ExitCode::data) throw;
  }
  return 0;
}

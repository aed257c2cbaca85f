#include "tests/bench/step/llama_files.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>

#include "core/check.h"
#include "core/text.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_data(cat("cannot read '", path, "'"));
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  if (at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

// The names whose rows, one after the other, are our parameter.
std::vector<std::string> file_names(const std::string& ours) {
  if (ours == "embedding.weight") return {"embed_tokens.weight"};
  if (ours == "final_norm.gain") return {"norm.weight"};
  if (ours == "head.weight") return {"lm_head.weight"};
  auto each = [&](const std::string& from, std::vector<std::string> to) {
    for (std::string& name : to) name = replaced(ours, from, name);
    return to;
  };
  if (ours.find("attention_norm.gain") != std::string::npos) {
    return each("attention_norm.gain", {"input_layernorm.weight"});
  }
  if (ours.find("mlp_norm.gain") != std::string::npos) {
    return each("mlp_norm.gain", {"post_attention_layernorm.weight"});
  }
  if (ours.find("attention.qkv") != std::string::npos) {
    return each("attention.qkv", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"});
  }
  if (ours.find("attention.output") != std::string::npos) {
    return each("attention.output", {"self_attn.o_proj"});
  }
  if (ours.find("mlp.gate_up") != std::string::npos) {
    return each("mlp.gate_up", {"gate_proj", "up_proj"});
  }
  return each("mlp.down", {"down_proj"});
}

}  // namespace

void load_llama_weights(const std::string& path, ParamStore& store) {
  const std::string bytes = read_file(path);
  uint64_t header_bytes = 0;
  if (bytes.size() < 8) fail_data(cat("'", path, "' is too short for safetensors"));
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > bytes.size() - 8) fail_data(cat("'", path, "' is not safetensors"));
  const auto header = nlohmann::json::parse(bytes.substr(8, header_bytes));
  const char* data = bytes.data() + 8 + header_bytes;
  for (const Param& p : store.params()) {
    auto* to = reinterpret_cast<char*>(store.master().data() + p.offset);
    int64_t copied = 0;
    for (const std::string& name : file_names(p.info.name)) {
      if (!header.contains(name)) fail_data(cat("'", path, "' lacks ", name));
      const auto& entry = header.at(name);
      if (entry.at("dtype") != "F32") fail_data(cat("'", path, "': ", name, " is not F32"));
      const int64_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
      if (copied + end - begin > p.elements * 4)
        fail_data(cat(name, " is too large for the model"));
      std::memcpy(to + copied, data + begin, static_cast<size_t>(end - begin));
      copied += end - begin;
    }
    if (copied != p.elements * 4) fail_data(cat("'", path, "' does not fit ", p.info.name));
  }
  store.refresh_compute(0, store.elements());
  store.raise_version();
}

MicroBatch whole_rows(std::span<const int32_t> ids, int64_t rows, int64_t length) {
  MicroBatch m{.sequences = rows, .length = length, .valid_labels = rows * length};
  for (int64_t row = 0; row < rows; ++row) {
    const auto first = ids.begin() + row * (length + 1);
    m.tokens.insert(m.tokens.end(), first, first + length);
    m.labels.insert(m.labels.end(), first + 1, first + length + 1);
    m.sample_ids.push_back(static_cast<uint64_t>(row));
    m.sources.push_back(0);
    for (int32_t t = 0; t < length; ++t) m.positions.push_back(t);
  }
  m.first_key.assign(m.tokens.size(), 0);
  return m;
}

std::vector<MicroBatch> load_token_rows(const std::string& path) {
  const std::string bytes = read_file(path);
  constexpr size_t fixed = 10;  // magic, version, header length
  uint16_t header_bytes = 0;
  if (bytes.size() < fixed || bytes.compare(1, 5, "NUMPY") != 0) {
    fail_data(cat("'", path, "' is not a .npy file"));
  }
  std::memcpy(&header_bytes, bytes.data() + 8, 2);
  const std::string header = bytes.substr(fixed, header_bytes);
  long count = 0, rows = 0, width = 0;
  const size_t at = header.find("'shape': (");
  if (header.find("'<i4'") == std::string::npos || at == std::string::npos ||
      std::sscanf(header.c_str() + at, "'shape': (%ld, %ld, %ld)", &count, &rows, &width) != 3) {
    fail_data(cat("'", path, "' must hold int32 [micro-batches, B, S + 1], not ", header));
  }
  const char* from = bytes.data() + fixed + header_bytes;
  std::vector<int32_t> values(static_cast<size_t>(count * rows * width));
  std::memcpy(values.data(), from, values.size() * 4);
  std::vector<MicroBatch> batch;
  for (long i = 0; i < count; ++i) {
    batch.push_back(whole_rows(
        {values.data() + i * rows * width, static_cast<size_t>(rows * width)}, rows, width - 1));
  }
  return batch;
}

}  // namespace shoestring

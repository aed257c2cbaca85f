// Hugging Face folders: the first byte of an input says whether the rest is a config.json alone, or
// a config and, after zero bytes, the header and the data of the weights beside it.

#include <unistd.h>

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
#include "tests/fuzz/fuzz_target.h"

using namespace shoestring;

namespace {

// What is read can be written, and reads as the same again.
void round_trip(const HuggingFaceConfig& config) {
  count_folder_tensors(config.model);
  try {
    const HuggingFaceConfig written{.family = family_of(config.model), .model = config.model};
    const HuggingFaceConfig again =
        parse_hugging_face_config(hugging_face_config_text(written), "again");
    check(again.model.layers == config.model.layers && again.model.ffn == config.model.ffn &&
              again.model.moe.experts == config.model.moe.experts &&
              again.model.rope.scaling == config.model.rope.scaling,
          "a config changed on its way out and in");
  } catch (const Error& error) {
    if (error.code() != ExitCode::usage) throw;  // a model of no family
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
  const std::string folder = cat("/dev/shm/hf_config_fuzz.", ::getpid());
  std::filesystem::create_directories(folder);
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
      round_trip(parse_hugging_face_config(input.substr(1), "config.json"));
    } else {
      open_folder(input.substr(1));
    }
  } catch (const Error& error) {
    if (error.code() != ExitCode::data) throw;
  }
  return 0;
}

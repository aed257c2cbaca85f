#include "io/hugging_face/fp8_choice.h"

#include <algorithm>
#include <cctype>
#include <string_view>

#include "core/text.h"

namespace shoestring {
namespace {

constexpr std::string_view weight = ".weight";

// The parameters that readers keep in one type, by one name: those that are fused here are one
// parameter anyway.
std::string group_of(const std::string& parameter) {
  for (const char* part : {"attention.q_down.", "attention.kv_down.", "moe.experts."}) {
    const size_t at = parameter.find(part);
    if (at == std::string::npos) continue;
    return parameter.substr(0, at) + (part[0] == 'a' ? "attention.down" : "moe.experts");
  }
  return parameter;
}

// "model.layers.*.mlp.experts.*.up_proj.weight [768, 2048]"
std::string kind_of(const FolderTensor& tensor) {
  std::string kind;
  bool number = false;
  for (const char c : tensor.name) {
    const bool digit =
        std::isdigit(static_cast<unsigned char>(c)) != 0 && (number || kind.ends_with('.'));
    if (!digit) kind += c;
    if (digit && !number) kind += '*';
    number = digit;
  }
  return cat(kind, " [", tensor.shape[0], ", ", tensor.shape[1], "]");
}

void add_once(std::string text, std::vector<std::string>& list) {
  if (std::find(list.begin(), list.end(), text) == list.end()) list.push_back(std::move(text));
}

bool divides(int64_t block, int64_t side) { return side % block == 0; }

}  // namespace

Fp8Choice::Fp8Choice(const HuggingFaceConfig& config)
    : blocks_(config.blocks), coded_(config.coded) {
  if (!blocks_.on()) return;
  const std::vector<FolderTensor> tensors = folder_tensors(config.family, config.model);
  for (const FolderTensor& t : tensors) {
    if (t.quantised && is_cut(t)) cut_groups_.insert(group_of(t.parameter));
  }
  plain_modules_.push_back("lm_head");
  for (const FolderTensor& t : tensors) {
    add(t);
    add_plain_module(config.family, t);
  }
}

bool Fp8Choice::is_cut(const FolderTensor& tensor) const {
  return !divides(blocks_.rows, tensor.shape[0]) || !divides(blocks_.columns, tensor.shape[1]);
}

bool Fp8Choice::is_fp8(const FolderTensor& tensor) const {
  if (!blocks_.on() || tensor.shape.size() != 2) return false;
  if (!coded_.empty()) return coded_.contains(tensor.parameter);
  return tensor.quantised && !cut_groups_.contains(group_of(tensor.parameter));
}

void Fp8Choice::add(const FolderTensor& tensor) {
  if (!is_fp8(tensor)) {
    if (!tensor.quantised) return;
    ++plain_;
    return add_once(kind_of(tensor), plain_kinds_);
  }
  ++fp8_;
  // One block over a whole side is what transformers takes it for.
  const auto misread = [](int64_t block, int64_t side) {
    return side > block && !divides(block, side);
  };
  if (misread(blocks_.rows, tensor.shape[0]) || misread(blocks_.columns, tensor.shape[1])) {
    add_once(kind_of(tensor), cut_kinds_);
  }
}

void Fp8Choice::add_plain_module(ModelFamily family, const FolderTensor& tensor) {
  // DeepSeek's routers are no linear layers.
  const bool router = tensor.parameter.ends_with("moe.router.weight") && !is_deepseek(family);
  if (is_fp8(tensor) || (!tensor.quantised && !router)) return;
  std::string name = tensor.name.substr(0, tensor.name.size() - weight.size());
  const std::string_view experts = ".experts.";
  const size_t at = name.find(experts);
  if (at != std::string::npos) name.resize(at + experts.size() - 1);
  // A layer's experts follow one another.
  if (plain_modules_.back() != name) plain_modules_.push_back(std::move(name));
}

}  // namespace shoestring

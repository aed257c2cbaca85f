#include "core/layers/context.h"

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

Recompute recompute_from_name(std::string_view name) {
  if (name == "none") return Recompute::none;
  if (name == "swiglu") return Recompute::swiglu;
  if (name == "norms") return Recompute::norms;
  if (name == "attention") return Recompute::attention;
  if (name == "block") return Recompute::block;
  fail_usage(cat("recompute policy '", name,
                 "' is unknown; the names are none, swiglu, norms, attention, block"));
}

BatchTensors to_device(Device& device, const MicroBatch& micro) {
  const int64_t rows = micro.sequences * micro.length;
  auto copy = [&](Shape shape, const std::vector<int32_t>& values) {
    Tensor t(device, std::move(shape), Dtype::i32, MemoryKind::data);
    if (static_cast<int64_t>(values.size()) != rows) {
      fail(cat("a micro-batch of ", micro.sequences, " x ", micro.length, " tokens has a table of ",
               values.size()));
    }
    std::copy(values.begin(), values.end(), t.data<int32_t>());
    return t;
  };
  std::vector<ShiftedRows> shifted;
  for (const ShiftedTokens& s : micro.shifted) {
    shifted.push_back({copy({rows}, s.tokens), copy({rows}, s.labels), copy({rows}, s.main)});
  }
  return {.sequences = micro.sequences,
          .length = micro.length,
          .tokens = copy({rows}, micro.tokens),
          .labels = copy({rows}, micro.labels),
          .positions = copy({rows}, micro.positions),
          .first_key = copy({micro.sequences, micro.length}, micro.first_key),
          .document_start = micro.document_start.empty()
                                ? Tensor()
                                : copy({micro.sequences, micro.length}, micro.document_start),
          .shifted = std::move(shifted)};
}

}  // namespace shoestring

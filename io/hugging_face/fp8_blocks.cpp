#include "io/hugging_face/fp8_blocks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "core/check.h"

namespace shoestring {
namespace {

std::array<float, 256> values_of_codes() {
  std::array<float, 256> table{};
  for (size_t code = 0; code < table.size(); ++code) {
    Float8E4M3 value;
    value.bits = static_cast<uint8_t>(code);
    table[code] = static_cast<float>(value);
  }
  return table;
}

// A scale below would lose its digits, or be 0 and make NaN of the block.
constexpr float least_scale = std::numeric_limits<float>::min();

// Of the columns [first, last) of all rows.
float largest_magnitude(std::span<const float> values, int64_t columns, int64_t first,
                        int64_t last) {
  float largest = 0;
  for (size_t row = 0; row < values.size(); row += static_cast<size_t>(columns)) {
    for (int64_t c = first; c < last; ++c) {
      largest = std::max(largest, std::abs(values[row + static_cast<size_t>(c)]));
    }
  }
  return largest;
}

}  // namespace

void dequantise_blocks(const Fp8Layout& layout, std::span<const uint8_t> codes,
                       std::span<const float> scales, int64_t begin, float* out) {
  const std::array<float, 256> table = values_of_codes();
  const int64_t end = begin + static_cast<int64_t>(codes.size());
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / layout.columns, column = at % layout.columns;
    const int64_t block = column / layout.blocks.columns;
    const int64_t stop = std::min(
        {end, at - column + (block + 1) * layout.blocks.columns, (row + 1) * layout.columns});
    const float scale =
        scales[static_cast<size_t>(row / layout.blocks.rows * layout.scale_columns() + block)];
    for (; at < stop; ++at) out[at - begin] = table[codes[static_cast<size_t>(at - begin)]] * scale;
  }
}

void quantise_blocks(const Fp8Layout& layout, std::span<const float> values,
                     std::vector<uint8_t>& codes, std::vector<float>& scales) {
  const auto columns = static_cast<size_t>(layout.columns);
  check(values.size() % columns == 0, "FP8 blocks are made of whole rows");
  codes.resize(values.size());
  const size_t strip = static_cast<size_t>(layout.blocks.rows) * columns;
  for (size_t at = 0; at < values.size(); at += strip) {
    const auto part = values.subspan(at, std::min(strip, values.size() - at));
    for (int64_t first = 0; first < layout.columns; first += layout.blocks.columns) {
      const int64_t last = std::min(first + layout.blocks.columns, layout.columns);
      const float largest = largest_magnitude(part, layout.columns, first, last);
      const float scale = largest > 0 ? std::max(largest / Float8E4M3::max, least_scale) : 1;
      scales.push_back(scale);
      for (size_t row = 0; row < part.size(); row += columns) {
        for (int64_t c = first; c < last; ++c) {
          const size_t i = row + static_cast<size_t>(c);
          codes[at + i] = Float8E4M3(part[i] / scale).bits;
        }
      }
    }
  }
}

}  // namespace shoestring

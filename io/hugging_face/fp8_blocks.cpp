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

// The columns [first, last) of a strip of rows.
struct Block {
  std::span<const float> values;
  size_t columns = 0, first = 0, last = 0;

  template <class F>
  void visit(F&& f) const {
    for (size_t row = 0; row < values.size(); row += columns) {
      for (size_t i = row + first; i < row + last; ++i) f(i);
    }
  }
  float largest() const {
    float most = 0;
    visit([&](size_t i) { most = std::max(most, std::abs(values[i])); });
    return most;
  }
};

float scale_by_magnitude(const Block& block) {
  const float largest = block.largest();
  return largest > 0 ? std::max(largest / Float8E4M3::max, least_scale) : 1;
}

bool gives_back(const Block& block, float scale) {
  for (size_t row = 0; row < block.values.size(); row += block.columns) {
    for (size_t i = row + block.first; i < row + block.last; ++i) {
      const float value = block.values[i];
      if (static_cast<float>(Float8E4M3(value / scale)) * scale != value) return false;
    }
  }
  return true;
}

// The largest magnitude was one of the codes times the scale, rounded: dividing it by the code
// misses the scale by one step at most.
float scale_by_codes(const Block& block) {
  const std::array<float, 256> table = values_of_codes();
  const float largest = block.largest(), inf = std::numeric_limits<float>::infinity();
  for (size_t code = 0x7e; code > 0 && largest > 0; --code) {
    const float near = largest / table[code];
    for (const float scale : {near, std::nextafter(near, 0.0f), std::nextafter(near, inf)}) {
      if (scale > 0 && scale < inf && gives_back(block, scale)) return scale;
    }
  }
  return scale_by_magnitude(block);
}

void quantise_by(float (*scale_of)(const Block&), const Fp8Layout& layout,
                 std::span<const float> values, std::vector<uint8_t>& codes,
                 std::vector<float>& scales) {
  const auto columns = static_cast<size_t>(layout.columns);
  check(values.size() % columns == 0, "FP8 blocks are made of whole rows");
  codes.resize(values.size());
  const size_t strip = static_cast<size_t>(layout.blocks.rows) * columns;
  const auto width = static_cast<size_t>(layout.blocks.columns);
  for (size_t at = 0; at < values.size(); at += strip) {
    const auto part = values.subspan(at, std::min(strip, values.size() - at));
    for (size_t first = 0; first < columns; first += width) {
      const Block block{.values = part,
                        .columns = columns,
                        .first = first,
                        .last = std::min(first + width, columns)};
      const float scale = scale_of(block);
      scales.push_back(scale);
      block.visit([&](size_t i) { codes[at + i] = Float8E4M3(part[i] / scale).bits; });
    }
  }
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
  quantise_by(scale_by_magnitude, layout, values, codes, scales);
}

void requantise_blocks(const Fp8Layout& layout, std::span<const float> values,
                       std::vector<uint8_t>& codes, std::vector<float>& scales) {
  quantise_by(scale_by_codes, layout, values, codes, scales);
}

}  // namespace shoestring

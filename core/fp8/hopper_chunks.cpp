#include "core/fp8/hopper_chunks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/fp8/small_float.h"

namespace shoestring {
namespace {

constexpr int64_t products_a_block = 32;
constexpr int16_t not_finite = 1000;

// A code as integer * 2^(exponent - mantissa bits). Subnormals have the smallest exponent.
struct Part {
  int16_t integer = 0, exponent = 0;
};
using Table = std::array<Part, 256>;

Table table_of(Dtype format) {
  const SmallFloat& f = facts_of(format);
  Table table;
  for (uint32_t code = 0; code < 256; ++code) {
    const int magnitude = static_cast<int>(code & 0x7f), field = magnitude >> f.mantissa_bits;
    const int fraction = magnitude & ((1 << f.mantissa_bits) - 1);
    int integer = field == 0 ? fraction : fraction + (1 << f.mantissa_bits);
    if ((code & 0x80) != 0) integer = -integer;
    table[code] = {static_cast<int16_t>(integer),
                   static_cast<int16_t>(static_cast<uint32_t>(magnitude) >= f.infinity
                                            ? not_finite
                                            : std::max(field, 1) - f.bias)};
  }
  return table;
}

int64_t shifted(int64_t magnitude, int left) {
  if (left >= 0) return magnitude << left;
  return left < -62 ? 0 : magnitude >> -left;
}

struct Arithmetic {
  int bits, fraction;  // kept; of a product of two integers
};

// c + the sum of the products, aligned to the largest exponent among them.
float add_block(float c, const Part* a, const Part* b, int64_t count, const Arithmetic& unit) {
  const uint32_t c_bits = std::bit_cast<uint32_t>(c);
  const int c_field = static_cast<int>(c_bits >> 23 & 0xff);
  constexpr int none = std::numeric_limits<int>::min() / 2;
  int most = c == 0 ? none : std::max(c_field, 1) - 127;
  if (c_field == 0xff) return std::numeric_limits<float>::quiet_NaN();
  for (int64_t i = 0; i < count; ++i) {
    if (a[i].exponent == not_finite || b[i].exponent == not_finite) {
      return std::numeric_limits<float>::quiet_NaN();
    }
    if (a[i].integer != 0 && b[i].integer != 0)
      most = std::max(most, a[i].exponent + b[i].exponent);
  }
  if (most == none) return 0;
  int64_t sum = 0;
  if (c != 0) {
    const int64_t integer = (c_bits & 0x7fffff) | (c_field == 0 ? 0 : 0x800000);
    const int exponent = std::max(c_field, 1) - 127;
    const int64_t term = shifted(integer, unit.bits - 23 + exponent - most);
    sum += c < 0 ? -term : term;
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t product = int64_t{a[i].integer} * b[i].integer;
    const int exponent = a[i].exponent + b[i].exponent;
    // Two steps: first the unit's fraction, then the alignment, which cuts off.
    const int64_t term = shifted(std::abs(product), unit.bits - unit.fraction + exponent - most);
    sum += product < 0 ? -term : term;
  }
  int64_t magnitude = std::abs(sum);
  const int width = std::bit_width(static_cast<uint64_t>(magnitude));
  const int extra = std::max(0, width - (unit.bits + 1));
  magnitude = magnitude >> extra << extra;
  const auto value =
      static_cast<float>(std::ldexp(static_cast<double>(magnitude), most - unit.bits));
  return sum < 0 ? -value : value;
}

Arithmetic unit_of(int bits, Dtype a, Dtype b) {
  return {bits, facts_of(a).mantissa_bits + facts_of(b).mantissa_bits};
}

}  // namespace

float hopper_block(float c, const HopperBlock& block) {
  const Table a_table = table_of(block.a_format), b_table = table_of(block.b_format);
  std::array<Part, products_a_block> a, b;
  const int64_t count = std::min(block.count, products_a_block);
  for (int64_t i = 0; i < count; ++i) {
    a[static_cast<size_t>(i)] = a_table[block.a[i]];
    b[static_cast<size_t>(i)] = b_table[block.b[i]];
  }
  return add_block(c, a.data(), b.data(), count,
                   unit_of(block.bits, block.a_format, block.b_format));
}

void hopper_chunks(const ChunkProblem& p, int bits) {
  const Table a_table = table_of(p.a_format), b_table = table_of(p.b_format);
  const Arithmetic unit = unit_of(bits, p.a_format, p.b_format);
  std::vector<Part> a(static_cast<size_t>(p.m * p.k)), b(static_cast<size_t>(p.k));
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t k = 0; k < p.k; ++k) {
      a[static_cast<size_t>(i * p.k + k)] = a_table[p.a[i * p.a_row + k * p.a_step]];
    }
  }
  for (int64_t j = 0; j < p.n; ++j) {
    for (int64_t k = 0; k < p.k; ++k) {
      b[static_cast<size_t>(k)] = b_table[p.b[k * p.b_step + j * p.b_column]];
    }
    for (int64_t i = 0; i < p.m; ++i) {
      float total = 0;
      for (int64_t k = 0; k < p.k; k += p.chunk) {
        const int64_t end = std::min(k + p.chunk, p.k), chunk = k / p.chunk;
        float sum = 0;
        for (int64_t at = k; at < end; at += products_a_block) {
          sum = add_block(sum, a.data() + i * p.k + at, b.data() + at,
                          std::min(products_a_block, end - at), unit);
        }
        const float scale =
            p.rows[chunk * p.rows_stride + i] * p.columns[chunk * p.columns_stride + j];
        total += sum * scale;
      }
      p.sums[i * p.sums_stride + j] = total;
    }
  }
}

}  // namespace shoestring

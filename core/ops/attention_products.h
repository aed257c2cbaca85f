#pragma once
// Products of small blocks, the bulk of attention's work. Operands are packed blocks of 4-byte
// words in cache: a word is one f32, or two bf16 that are neighbours along the summed dimension.

#include <cstdint>

namespace shoestring::attention {

// Most rows and columns of scores that one block has.
inline constexpr int64_t block_rows = 128;
inline constexpr int64_t block_keys = 64;

// Rows of packed blocks are multiples of this many words, the widest vector.
inline constexpr int64_t word_multiple = 16;

// What of a product is wanted: everything, or per row r of c only columns (or steps of the sum)
// begin[r] <= i < end[r]. begin and end do not decrease with r. More may be computed; entries
// outside must be zero in the operands (steps), or are undefined in the result (columns).
enum class Limit : uint8_t { none, columns, steps };

// c[r, j] (+)= sum over k of a[r, k] * b[k, j]
struct Product {
  const float* a;  // word (r, k) at a[r * a_row + k * a_step]
  int64_t a_row, a_step;
  const float* b;  // word (k, j) at b[k * b_step + j]
  int64_t b_step;
  float* c;  // always f32
  int64_t c_row;
  int64_t rows, columns, steps;  // columns: a multiple of word_multiple; steps: in words
  bool accumulate = true;
  Limit limit = Limit::none;
  const int32_t* begin = nullptr;
  const int32_t* end = nullptr;
};
using Multiply = void (*)(const Product&);

void multiply_f32(const Product& product);
// Words are pairs of bf16; sums are f32. Only where has_bf16_products().
void multiply_bf16(const Product& product);

// How a vector kernel enters the loop below: one register tile of `rows` by `vectors` vectors.
struct Tile {
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_step;
  float* c;
  int64_t c_row;
  int64_t steps;
  bool accumulate;
};
inline constexpr int64_t most_tile_rows = 6;
inline constexpr int64_t most_tile_vectors = 4;
struct TileKernels {
  using Kernel = void (*)(const Tile&);
  int64_t lanes, rows, vectors;                              // the best tile
  Kernel kernel[most_tile_rows + 1][most_tile_vectors + 1];  // [rows][vectors], from 1
};
// Cuts a product into tiles, column tiles outermost so that their part of b stays in cache.
void multiply_tiles(const Product& product, const TileKernels& kernels);

}  // namespace shoestring::attention

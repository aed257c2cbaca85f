#include "core/panel_product.h"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "core/memory.h"
#include "core/panel_kernels.h"
#include "core/parallel_for.h"

namespace shoestring {
namespace {

// Sizes in 32-bit units. A block of A (168 x 512) and a slice of B's panel (512 x 32) live in the
// second-level cache, packed B in the third. Sums of a tile are kept between blocks along K.
constexpr int64_t block_units = 512;
constexpr int64_t block_rows = 168;
constexpr int64_t tile_columns = 128;        // one block along K: the tile stays in the cache
constexpr int64_t long_tile_columns = 2048;  // several: few tiles, so that A is packed once
constexpr int64_t packed_b_units = 4 << 20;
// Where lanes are neighbours in memory, all panels are packed for a few k at a time, so that a
// cache line and a page of the operand serve them all. Rows of a block of A are short and each on a
// page of its own, where the processor prefetches nothing; rows of B are long and read as streams.
constexpr int64_t slice_of_a = 32;
constexpr int64_t slice_of_b = 8;

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

struct Product {
  Device& device;
  const MatrixView& c;
  const MatrixView& a;
  const MatrixView& b;
  const MatmulSpec& spec;
  const ChunkScales* chunks;  // null: one chunk
  PanelKernels kernels;
  int64_t depth, units;

  int64_t units_a_chunk() const {
    return chunks == nullptr ? units : chunks->depth / kernels.k_per_unit;
  }

  Strip strip_of_a(int64_t row, int64_t rows) const {
    const auto size = static_cast<int64_t>(size_of(a.dtype));
    const int64_t lane_step = spec.transpose_a ? 1 : a.stride;
    return {a.data + row * lane_step * size,
            lane_step,
            spec.transpose_a ? a.stride : 1,
            rows,
            depth,
            size,
            slice_of_a};
  }
  Strip strip_of_b(int64_t column, int64_t columns) const {
    const auto size = static_cast<int64_t>(size_of(b.dtype));
    const int64_t lane_step = spec.transpose_b ? b.stride : 1;
    return {b.data + column * lane_step * size,
            lane_step,
            spec.transpose_b ? 1 : b.stride,
            columns,
            depth,
            size,
            0};
  }
  // Sums may be made in the result itself.
  bool direct() const { return c.dtype == Dtype::f32 && !spec.accumulate && spec.alpha == 1.0; }
};

// A range of C: rows of C by panels of the packed columns that begin at `first_column`.
struct Part {
  int64_t row_begin, row_end;
  int64_t panel_begin, panel_end;
  int64_t first_column, end_column;
  const float* packed_b;
};

// Memory for packed operands: the device's, so that the ledger counts it and pages are reused.
float* memory_of(const BlockPtr& block) { return reinterpret_cast<float*>(block->data()); }
BlockPtr scratch(Device& device, int64_t units) {
  return device.allocate(static_cast<size_t>(units) * sizeof(float), MemoryKind::workspace);
}

// Rows [0, rows) of a block as panels of nearly equal height.
struct Panels {
  int64_t rows, count;
  Panels(int64_t rows, int64_t highest) : rows(rows), count((rows + highest - 1) / highest) {}
  int64_t begin(int64_t i) const { return rows * i / count; }
  int64_t height(int64_t i) const { return begin(i + 1) - begin(i); }
};

// Packs units [unit, unit + block_units) of a block's rows.
void pack_a(const Product& p, int64_t first_row, const Panels& panels, int64_t unit,
            float* packed) {
  const int64_t k_begin = unit * p.kernels.k_per_unit;
  const int64_t k_end = std::min(p.depth, k_begin + block_units * p.kernels.k_per_unit);
  const int64_t step = p.spec.transpose_a ? slice_of_a : k_end - k_begin;
  const int64_t units = std::min(block_units, p.units - unit);
  for (int64_t k = k_begin; k < k_end; k += step) {
    for (int64_t i = 0; i < panels.count; ++i) {
      const int64_t row = panels.begin(i), height = panels.height(i);
      const Strip strip = p.strip_of_a(first_row + row, height).slice(k, std::min(k + step, k_end));
      p.kernels.pack(strip, height,
                     packed + row * units + (k - k_begin) / p.kernels.k_per_unit * height);
    }
  }
}

void pack_b(const Product& p, int64_t first, int64_t end, float* packed) {
  const int64_t width = p.kernels.columns, panels = (end - first + width - 1) / width;
  const int64_t slices = p.spec.transpose_b ? 1 : (p.depth + slice_of_b - 1) / slice_of_b;
  // Jobs are panels, or slices of all panels.
  const int64_t jobs = p.spec.transpose_b ? panels : slices;
  const auto pack = [&](int64_t j, Strip strip, int64_t k) {
    p.kernels.pack(strip, width, packed + (j * p.units + k / p.kernels.k_per_unit) * width);
  };
  constexpr int64_t grain_units = 1 << 18;
  const int64_t units_a_job = p.units * width * panels / jobs;
  const int64_t grain = 1 + grain_units / units_a_job;
  parallel_for(p.device, jobs, grain, [&](int64_t begin, int64_t stop) {
    for (int64_t job = begin; job < stop; ++job) {
      const int64_t j_begin = p.spec.transpose_b ? job : 0;
      const int64_t j_end = p.spec.transpose_b ? job + 1 : panels;
      for (int64_t j = j_begin; j < j_end; ++j) {
        const int64_t column = first + j * width;
        const Strip strip = p.strip_of_b(column, std::min(width, end - column));
        const int64_t k = job * slice_of_b;
        p.spec.transpose_b ? pack(j, strip, 0)
                           : pack(j, strip.slice(k, std::min(k + slice_of_b, p.depth)), k);
      }
    }
  });
}

// One block of A along K times the panels of a tile.
struct Tile {
  int64_t panel_begin, panel_end;
  float* sums;
  int64_t stride;
};
void multiply_tile(const Product& p, const Part& part, const Panels& panels, int64_t unit,
                   const Tile& tile, const float* packed_a) {
  const int64_t width = p.kernels.columns, units = std::min(block_units, p.units - unit);
  const int64_t step = std::min(units, p.units_a_chunk());
  for (int64_t j = tile.panel_begin; j < tile.panel_end; ++j) {
    for (int64_t i = 0; i < panels.count; ++i) {
      const int64_t row = panels.begin(i), height = panels.height(i);
      PanelPair pair = {.a = packed_a + row * units,
                        .b = part.packed_b + (j * p.units + unit) * width,
                        .units = step,
                        .c = tile.sums + row * tile.stride + (j - tile.panel_begin) * width,
                        .stride = tile.stride,
                        .add = unit > 0};
      const bool scaled = p.chunks != nullptr && p.chunks->rows != nullptr;
      const auto multiply = scaled ? p.kernels.multiply_scaled[height] : p.kernels.multiply[height];
      for (int64_t u = 0; u < units; u += step) {
        pair.units = std::min(step, units - u);
        if (scaled) {
          const int64_t chunk = (unit + u) / p.units_a_chunk();
          pair.row_scales = p.chunks->rows + chunk * p.chunks->rows_stride + part.row_begin + row;
          pair.column_scales =
              p.chunks->columns + chunk * p.chunks->columns_stride + part.first_column + j * width;
        }
        multiply(pair);
        pair.a += pair.units * height;
        pair.b += pair.units * width;
        pair.add = true;
      }
    }
  }
}

// What one thread needs for a part: a packed block of A and the sums of a tile.
struct PartNeed {
  int64_t step;         // panels of B a tile
  int64_t packed_size;  // of A
  int64_t widest;       // columns of a tile
  int64_t sums;
};
PartNeed need_of_part(int64_t rows, int64_t panels, int64_t units, int64_t width) {
  const int64_t step = (units <= block_units ? tile_columns : long_tile_columns) / width;
  const int64_t widest = std::min(step, panels) * width;
  return {step, rows * std::min(block_units, units) + pack_slack, widest, rows * widest};
}

void multiply_part(const Product& p, const Part& part) {
  const int64_t rows = part.row_end - part.row_begin, width = p.kernels.columns;
  const bool one_block = p.units <= block_units;
  const Panels panels(rows, p.kernels.rows);
  const auto [step, packed_size, widest, sums] =
      need_of_part(rows, part.panel_end - part.panel_begin, p.units, width);
  const BlockPtr block = scratch(p.device, packed_size + sums);
  float* packed = memory_of(block);
  const auto size = static_cast<int64_t>(size_of(p.c.dtype));
  for (int64_t j = part.panel_begin; j < part.panel_end; j += step) {
    const int64_t j_end = std::min(j + step, part.panel_end);
    const int64_t column = part.first_column + j * width;
    const int64_t columns = std::min(part.end_column - column, (j_end - j) * width);
    std::byte* out = p.c.data + (part.row_begin * p.c.stride + column) * size;
    const bool direct = p.direct() && columns == (j_end - j) * width;
    const Tile tile = direct ? Tile{j, j_end, reinterpret_cast<float*>(out), p.c.stride}
                             : Tile{j, j_end, packed + packed_size, widest};
    for (int64_t unit = 0; unit < p.units; unit += block_units) {
      if (!one_block || j == part.panel_begin) pack_a(p, part.row_begin, panels, unit, packed);
      multiply_tile(p, part, panels, unit, tile, packed);
    }
    if (direct) continue;
    p.kernels.finish({.sums = tile.sums,
                      .sums_stride = tile.stride,
                      .out = out,
                      .out_stride = p.c.stride,
                      .rows = rows,
                      .columns = columns,
                      .dtype = p.c.dtype,
                      .accumulate = p.spec.accumulate,
                      .alpha = static_cast<float>(p.spec.alpha)});
  }
}

// How C is cut for the threads; no cut changes a bit.
struct Cut {
  int64_t down, across;
};
Cut cut_of(const Device& device, const PanelSizes& sizes, int64_t panel_rows, int64_t panels) {
  constexpr int64_t worth_a_thread = 1 << 23;  // multiplications
  const int64_t threads =
      threads_for(device, sizes.rows * sizes.columns * sizes.depth, worth_a_thread);
  int64_t down = (sizes.rows + block_rows - 1) / block_rows;
  if (down >= threads) return {round_up(down, threads), 1};
  down = std::clamp<int64_t>(sizes.rows / (2 * panel_rows), 1, threads);
  return {down, std::min(panels, (threads + down - 1) / down)};
}

int64_t units_of(const PanelKernels& kernels, int64_t depth) {
  return (depth + kernels.k_per_unit - 1) / kernels.k_per_unit;
}

// Columns of B that are packed at once.
int64_t columns_a_chunk(int64_t columns, int64_t units, int64_t width) {
  const int64_t fitting = std::max<int64_t>(packed_b_units / units / width * width, width);
  const int64_t chunks = (columns + fitting - 1) / fitting;
  return round_up((columns + chunks - 1) / chunks, width);
}

void multiply(Device& device, Product p) {
  const MatrixView& c = p.c;
  p.units = units_of(p.kernels, p.depth);
  const int64_t width = p.kernels.columns;
  const int64_t chunk = columns_a_chunk(c.columns, p.units, width);
  const BlockPtr packed = scratch(device, p.units * chunk);
  float* packed_b = memory_of(packed);
  for (int64_t first = 0; first < c.columns; first += chunk) {
    const int64_t end = std::min(first + chunk, c.columns);
    const int64_t panels = (end - first + width - 1) / width;
    pack_b(p, first, end, packed_b);
    const Cut cut = cut_of(device, {c.rows, c.columns, p.depth}, p.kernels.rows, panels);
    parallel_for_dynamic(device, cut.down * cut.across, [&](int64_t i) {
      const int64_t row = i / cut.across, column = i % cut.across;
      const Part part = {.row_begin = c.rows * row / cut.down,
                         .row_end = c.rows * (row + 1) / cut.down,
                         .panel_begin = panels * column / cut.across,
                         .panel_end = panels * (column + 1) / cut.across,
                         .first_column = first,
                         .end_column = end,
                         .packed_b = packed_b};
      if (part.row_begin < part.row_end) multiply_part(p, part);
    });
  }
}

}  // namespace

void panel_product(Device& device, const MatrixView& c, const MatrixView& a, const MatrixView& b,
                   const MatmulSpec& spec) {
  multiply(device, {device, c, a, b, spec, nullptr, panel_kernels(a.dtype),
                    spec.transpose_a ? a.rows : a.columns, 0});
}

int64_t panel_product_bytes(const Device& device, const PanelSizes& sizes, Dtype operand) {
  if (sizes.rows == 0 || sizes.columns == 0 || sizes.depth == 0) return 0;
  const PanelKernels kernels = panel_kernels(operand);
  const int64_t units = units_of(kernels, sizes.depth), width = kernels.columns;
  const int64_t chunk = columns_a_chunk(sizes.columns, units, width);
  const Cut cut = cut_of(device, sizes, kernels.rows, chunk / width);
  const int64_t rows = (sizes.rows + cut.down - 1) / cut.down;
  const int64_t panels = (chunk / width + cut.across - 1) / cut.across;
  const PartNeed part = need_of_part(rows, panels, units, width);
  const int64_t threads = std::min<int64_t>(device.threads(), cut.down * cut.across);
  const auto bytes = [](int64_t floats) { return round_up(floats * 4, 64); };  // as in the ledger
  return bytes(units * chunk) + threads * bytes(part.packed_size + part.sums);
}

void chunked_panel_product(Device& device, const ChunkedProduct& x) {
  multiply(device, {device, x.c, x.a, x.b, x.spec, &x.scales, panel_kernels(x.a.dtype),
                    x.spec.transpose_a ? x.a.rows : x.a.columns, 0});
}

}  // namespace shoestring

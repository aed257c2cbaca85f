#include "core/ops/split_qkv.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

int64_t heads_of(const SplitQkv::Attributes& a, size_t part) {
  return part == 0 ? a.heads : a.kv_heads;
}

// The three parts of a row of qkv, each with its turn (or plain copy); `narrow` side still empty.
std::array<RotateRows, 3> parts(const SplitQkv::Attributes& a, const Tensor& positions) {
  std::array<RotateRows, 3> result;
  for (size_t i = 0; i < 3; ++i) {
    result[i].positions = positions;
    result[i].rope = {.table = i < 2 ? a.table : RopeTable{},
                      .heads = heads_of(a, i),
                      .head_dim = a.head_dim,
                      .rotated = a.rotated > 0 ? a.rotated : a.head_dim,
                      .interleaved = a.interleaved};
  }
  return result;
}

int64_t first_column(const SplitQkv::Attributes& a, size_t part) {
  const std::array<int64_t, 3> heads_before = {0, a.heads, a.heads + a.kv_heads};
  return heads_before[part] * a.head_dim;
}

void check_attributes(const SplitQkv::Attributes& a, const Tensor& qkv, const Tensor& positions) {
  check_tensor(SplitQkv::name, "qkv", qkv, {qkv.rows(), (a.heads + 2 * a.kv_heads) * a.head_dim},
               qkv.dtype());
  check_tensor(SplitQkv::name, "positions", positions, {qkv.rows()}, Dtype::i32);
  if (!a.table.cos) return;
  const int64_t rotated = a.rotated > 0 ? a.rotated : a.head_dim;
  if (rotated > a.head_dim || a.table.cos.columns() != rotated / 2) {
    fail(cat("[split_qkv] the table is for ", 2 * a.table.cos.columns(), " rotated dims, but ",
             rotated, " of ", a.head_dim, " turn"));
  }
}

struct Work {
  std::array<RotateRows, 3> parts;
};

void clear_rows(const RotateRows& a, int64_t begin, int64_t end) {
  const size_t size = size_of(a.to.dtype());
  const size_t bytes = static_cast<size_t>(a.rope.heads * a.rope.head_dim) * size;
  for (int64_t row = begin; row < end; ++row) {
    std::memset(a.to.raw() + static_cast<size_t>(row * a.to.columns() + a.to_column) * size, 0,
                bytes);
  }
}

void split_cpu(Stream& stream, const Work& arguments) {
  stream.run([&device = stream.device(), work = arguments] {
    if (work.parts[0].rope.table.cos) {
      check_positions(SplitQkv::name, work.parts[0].positions, work.parts[0].rope.table);
    }
    const int64_t rows = work.parts[0].positions.elements();
    // A few rows at a time, all three parts of them: the wide side is one stream of memory.
    constexpr int64_t few = 8;
    int64_t columns = 0;
    for (const RotateRows& part : work.parts) columns += part.rope.heads * part.rope.head_dim;
    parallel_for(device, rows, few * rows_a_range(few * columns), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row += few) {
        for (const RotateRows& part : work.parts) {
          const int64_t last = std::min(row + few, end);
          part.from ? rotate_rows(part, row, last) : clear_rows(part, row, last);
        }
      }
    });
  });
}

}  // namespace

Tensors<3> SplitQkv::forward(Stream& stream, const Attributes& attributes, const Tensors<2>& inputs,
                             Saved& saved) {
  const auto& [qkv, positions] = inputs;
  check_attributes(attributes, qkv, positions);
  Work work{parts(attributes, positions)};
  Tensors<3> outputs;
  for (size_t i = 0; i < 3; ++i) {
    const int64_t columns = heads_of(attributes, i) * attributes.head_dim;
    outputs[i] = Tensor(stream.device(), {qkv.rows(), columns}, qkv.dtype());
    work.parts[i].from = qkv;
    work.parts[i].from_column = first_column(attributes, i);
    work.parts[i].to = outputs[i];
  }
  on(stream, name, split_cpu, nullptr, work);
  saved = {.positions = positions};
  return outputs;
}

Tensors<2> SplitQkv::grad_input(Stream& stream, const Attributes& attributes, const Saved& saved,
                                const Tensors<3>& dy) {
  const auto given = std::find_if(dy.begin(), dy.end(), [](const Tensor& t) { return bool(t); });
  if (given == dy.end()) return {};
  const int64_t rows = saved.positions.elements();
  const int64_t heads = attributes.heads + 2 * attributes.kv_heads;
  Tensor dqkv(stream.device(), {rows, heads * attributes.head_dim}, given->dtype());
  check_attributes(attributes, dqkv, saved.positions);
  Work work{parts(attributes, saved.positions)};
  for (size_t i = 0; i < 3; ++i) {
    const int64_t columns = heads_of(attributes, i) * attributes.head_dim;
    if (dy[i]) check_tensor(name, "dq, dk or dv", dy[i], {rows, columns}, dqkv.dtype());
    work.parts[i].from = dy[i];
    work.parts[i].to = dqkv;
    work.parts[i].to_column = first_column(attributes, i);
    work.parts[i].direction = -1;
  }
  on(stream, name, split_cpu, nullptr, work);
  return {dqkv, Tensor()};
}

}  // namespace shoestring

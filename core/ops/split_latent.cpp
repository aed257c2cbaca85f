#include "core/ops/split_latent.h"

#include <array>
#include <cstring>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

using Parts = std::array<RotateRows, 2>;

// The latent is copied and the key turned: one head each; the tensors are still to be filled in.
Parts parts_of(const SplitLatent::Attributes& a, const Tensor& positions) {
  Parts parts;
  parts[0].rope = {.heads = 1, .head_dim = a.latent};
  parts[1].rope = {.table = a.table,
                   .heads = 1,
                   .head_dim = a.rotated,
                   .rotated = a.rotated,
                   .interleaved = true};
  for (RotateRows& part : parts) part.positions = positions;
  return parts;
}

void check_attributes(const SplitLatent::Attributes& a, const Tensor& x, const Tensor& positions) {
  check_tensor(SplitLatent::name, "x", x, {x.rows(), a.latent + a.rotated}, x.dtype());
  check_tensor(SplitLatent::name, "positions", positions, {x.rows()}, Dtype::i32);
  if (!a.table.cos || a.table.cos.columns() * 2 != a.rotated) {
    fail(cat("[split_latent] the table is for ",
             a.table.cos ? 2 * a.table.cos.columns() : int64_t{0}, " rotated dims, but ", a.rotated,
             " turn"));
  }
}

void clear_rows(const RotateRows& a, int64_t begin, int64_t end) {
  const size_t size = size_of(a.to.dtype());
  for (int64_t row = begin; row < end; ++row) {
    std::memset(a.to.raw() + static_cast<size_t>(row * a.to.columns() + a.to_column) * size, 0,
                static_cast<size_t>(a.rope.head_dim) * size);
  }
}

void move_cpu(Stream& stream, const Parts& arguments) {
  stream.run([&device = stream.device(), parts = arguments] {
    check_positions(SplitLatent::name, parts[1].positions, parts[1].rope.table);
    const int64_t columns = parts[0].rope.head_dim + parts[1].rope.head_dim;
    parallel_for(device, parts[1].positions.elements(), rows_a_range(columns),
                 [&](int64_t begin, int64_t end) {
                   for (const RotateRows& part : parts) {
                     part.from ? rotate_rows(part, begin, end) : clear_rows(part, begin, end);
                   }
                 });
  });
}

}  // namespace

Tensors<2> SplitLatent::forward(Stream& stream, const Attributes& attributes,
                                const Tensors<2>& inputs, Saved& saved) {
  const auto& [x, positions] = inputs;
  check_attributes(attributes, x, positions);
  const Tensors<2> outputs = {Tensor(stream.device(), {x.rows(), attributes.latent}, x.dtype()),
                              Tensor(stream.device(), {x.rows(), attributes.rotated}, x.dtype())};
  Parts parts = parts_of(attributes, positions);
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i].from = x;
    parts[i].from_column = i == 0 ? 0 : attributes.latent;
    parts[i].to = outputs[i];
  }
  on(stream, name, move_cpu, nullptr, parts);
  saved = {.positions = positions};
  return outputs;
}

Tensors<2> SplitLatent::grad_input(Stream& stream, const Attributes& attributes, const Saved& saved,
                                   const Tensors<2>& dy) {
  if (!dy[0] && !dy[1]) return {};
  const int64_t rows = saved.positions.elements();
  const Dtype dtype = dy[0] ? dy[0].dtype() : dy[1].dtype();
  Tensor dx(stream.device(), {rows, attributes.latent + attributes.rotated}, dtype);
  check_attributes(attributes, dx, saved.positions);
  Parts parts = parts_of(attributes, saved.positions);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (dy[i]) check_tensor(name, "dy", dy[i], {rows, parts[i].rope.head_dim}, dtype);
    parts[i].from = dy[i];
    parts[i].to = dx;
    parts[i].to_column = i == 0 ? 0 : attributes.latent;
    parts[i].direction = -1;
  }
  on(stream, name, move_cpu, nullptr, parts);
  return {dx, Tensor()};
}

}  // namespace shoestring

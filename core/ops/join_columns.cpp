#include "core/ops/join_columns.h"

#include <cstring>

#include "core/parallel_for.h"

namespace shoestring {
namespace {

struct Work {
  Tensor first, second, joined;
  bool cut = false;  // from joined to the two, else the other way
};

void move_cpu(Stream& stream, const Work& arguments) {
  stream.run([&device = stream.device(), w = arguments] {
    const size_t size = size_of(w.joined.dtype());
    const size_t a = static_cast<size_t>(w.first.columns()) * size;
    const size_t b = static_cast<size_t>(w.second.columns()) * size;
    parallel_for(
        device, w.joined.rows(), rows_a_range(w.joined.columns()), [&](int64_t begin, int64_t end) {
          for (auto row = static_cast<size_t>(begin); row < static_cast<size_t>(end); ++row) {
            std::byte* first = w.first.raw() + row * a;
            std::byte* second = w.second.raw() + row * b;
            std::byte* joined = w.joined.raw() + row * (a + b);
            std::memcpy(w.cut ? first : joined, w.cut ? joined : first, a);
            std::memcpy(w.cut ? second : joined + a, w.cut ? joined + a : second, b);
          }
        });
  });
}

}  // namespace

Tensors<1> JoinColumns::forward(Stream& stream, const Attributes& attributes,
                                const Tensors<2>& inputs, Saved&) {
  const auto& [first, second] = inputs;
  check_tensor(name, "first", first, {first.rows(), attributes.first}, first.dtype());
  check_tensor(name, "second", second, {first.rows(), second.columns()}, first.dtype());
  Tensor y(stream.device(), {first.rows(), first.columns() + second.columns()}, first.dtype());
  on(stream, name, move_cpu, nullptr, Work{first, second, y, false});
  return {y};
}

Tensors<2> JoinColumns::grad_input(Stream& stream, const Attributes& attributes, const Saved&,
                                   const Tensors<1>& dy) {
  if (!dy[0]) return {};
  const int64_t rows = dy[0].rows(), rest = dy[0].columns() - attributes.first;
  Tensor first(stream.device(), {rows, attributes.first}, dy[0].dtype());
  Tensor second(stream.device(), {rows, rest}, dy[0].dtype());
  on(stream, name, move_cpu, nullptr, Work{first, second, dy[0], true});
  return {first, second};
}

}  // namespace shoestring

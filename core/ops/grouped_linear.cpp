#include "core/ops/grouped_linear.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "core/check.h"
#include "core/matmul.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "core/thin_product.h"

namespace shoestring {
namespace {

// A part of one expert's product that one thread makes: rows [begin, end) of its result.
struct Piece {
  int64_t expert, begin, end;
  int64_t work;
};

struct Job {
  Tensor c, a, b, offsets;
  MatmulSpec spec;
  bool thin = false;
  int64_t sources = 1;

  int64_t experts() const { return (offsets.elements() - 1) / sources; }
  // Of one segment of an expert, or behind its last.
  int64_t border(int64_t expert, int64_t source = 0) const {
    return offsets.data<int32_t>()[expert * sources + source];
  }
  int64_t rows_of(int64_t expert) const { return border(expert + 1) - border(expert); }
};

// Of results with one row a token, pieces are rows; a piece packs its expert's matrix again, which
// some hundred rows pay for.
constexpr int64_t least_rows = 256, most_rows = 1024;
// Of weight gradients, pieces are rows of the matrix; each packs the expert's tokens again.
constexpr int64_t least_outputs = 128;
constexpr int64_t pieces_a_thread = 4;  // the last ones to finish are then small

// The largest first, so that threads end together. No cut changes a bit.
void sort_by_work(std::vector<Piece>& pieces) {
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.work > b.work; });
}

void cut(int64_t expert, int64_t rows, int64_t count, int64_t work, std::vector<Piece>& pieces) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = rows * i / count, end = rows * (i + 1) / count;
    if (begin < end) pieces.push_back({expert, begin, end, (end - begin) * work});
  }
}

std::vector<Piece> pieces_of_rows(const Device& device, const Job& job) {
  const int64_t wanted = job.border(job.experts()) / (device.threads() * pieces_a_thread);
  const int64_t size = std::clamp(wanted, least_rows, most_rows);
  std::vector<Piece> pieces;
  for (int64_t e = 0; e < job.experts(); ++e) {
    const int64_t rows = job.rows_of(e);
    cut(e, rows, (rows + size - 1) / size, 1, pieces);
  }
  sort_by_work(pieces);
  return pieces;
}

std::vector<Piece> pieces_of_outputs(const Device& device, const Job& job, int64_t outputs) {
  const int64_t all = job.border(job.experts());
  const int64_t wanted = std::max<int64_t>(all / (device.threads() * pieces_a_thread), 1);
  std::vector<Piece> pieces;
  for (int64_t e = 0; e < job.experts(); ++e) {
    const int64_t rows = job.rows_of(e);
    if (rows == 0) continue;  // adds nothing
    const int64_t most = std::max<int64_t>(outputs / least_outputs, 1);
    cut(e, outputs, std::clamp<int64_t>(rows / wanted, 1, most), rows, pieces);
  }
  sort_by_work(pieces);
  return pieces;
}

// The pieces on as many threads as their multiplications pay for.
void run_pieces(Device& device, const std::vector<Piece>& pieces, int64_t work,
                const std::function<void(const Piece&)>& body) {
  constexpr int64_t worth_a_thread = 1 << 23;
  parallel_for_dynamic(device, static_cast<int64_t>(pieces.size()),
                       threads_for(device, work, worth_a_thread),
                       [&](int64_t i) { body(pieces[static_cast<size_t>(i)]); });
}

void check_offsets(const Tensor& offsets, int64_t rows) {
  const std::span<const int32_t> at = offsets.span<int32_t>();
  const bool ordered = at.front() == 0 && std::is_sorted(at.begin(), at.end());
  if (!ordered || at.back() > rows) {
    fail(cat("[grouped_linear] offsets from ", at.front(), " to ", at.back(), " of ", rows,
             " rows must begin at 0 and never fall"));
  }
}

// c_e = a_e op(b_e): rows of tokens times the experts' matrices.
void row_products_cpu(Stream& stream, const Job& arguments) {
  stream.run([&device = stream.device(), job = arguments] {
    check_offsets(job.offsets, job.c.rows());
    const int64_t experts = job.experts(), height = job.b.rows() / experts;
    const int64_t used = job.border(experts);
    const MatrixView c(job.c), a(job.a), b(job.b);
    const std::vector<Piece> pieces = pieces_of_rows(device, job);
    // Thin products wait for the matrices, about as long as some dozen rows would compute.
    constexpr int64_t waiting_rows = 32;
    const int64_t rows = used * (job.thin ? waiting_rows : 1);
    run_pieces(device, pieces, rows * job.b.columns() * height, [&](const Piece& p) {
      const int64_t first = job.border(p.expert);
      const MatrixView to = c.slice_rows(first + p.begin, first + p.end);
      const MatrixView from = a.slice_rows(first + p.begin, first + p.end);
      MatmulSpec spec = job.spec;
      spec.exact = !(job.thin && is_thin(to, from, spec));
      matmul(device, to, from, b.slice_rows(p.expert * height, (p.expert + 1) * height), spec);
    });
    const Tensor rest = job.c.rows(used, job.c.rows());
    std::memset(rest.raw(), 0, rest.bytes());
  });
}

// c_e += a_e^T b_e: the experts' matrices from rows of tokens.
void matrix_products_cpu(Stream& stream, const Job& arguments) {
  stream.run([&device = stream.device(), job = arguments] {
    check_offsets(job.offsets, job.a.rows());
    const int64_t experts = job.experts(), height = job.a.columns();
    const Shape shape = {experts * height, job.b.columns()};
    std::vector<MatrixView> c;  // by source
    for (int64_t s = 0; s < job.sources; ++s) {
      c.emplace_back(gradient_of_source(job.c, shape, s, job.sources));
    }
    const MatrixView a(job.a), b(job.b);
    const std::vector<Piece> pieces = pieces_of_outputs(device, job, height);
    const int64_t work = job.border(experts) * job.b.columns() * height;
    run_pieces(device, pieces, work, [&](const Piece& p) {
      for (int64_t s = 0; s < job.sources; ++s) {
        const int64_t first = job.border(p.expert, s), last = job.border(p.expert, s + 1);
        if (first == last) continue;
        const MatrixView to = c[static_cast<size_t>(s)].slice_rows(p.expert * height + p.begin,
                                                                   p.expert * height + p.end);
        matmul(device, to, a.slice_rows(first, last).slice_columns(p.begin, p.end),
               b.slice_rows(first, last), job.spec);
      }
    });
  });
}

int64_t experts_of(const Tensor& offsets, int64_t sources) {
  const int64_t segments = offsets.elements() - 1;
  if (segments > 0 && sources > 0 && segments % sources == 0) return segments / sources;
  fail(cat("[grouped_linear] ", segments, " segments of rows are not those of ", sources,
           " sources: there are as many of every expert"));
}

void check_weight(const Tensor& x, const Tensor& offsets, const Tensor& w, int64_t columns,
                  int64_t sources) {
  check_tensor(GroupedLinear::name, "offsets", offsets, {offsets.elements()}, Dtype::i32);
  const int64_t experts = experts_of(offsets, sources);
  const bool fits = w.shape().rank() == 2 && w.rows() % experts == 0 && x.dtype() == w.dtype() &&
                    x.columns() == columns;
  if (fits) return;
  fail(cat("[grouped_linear] rows ", x.text(), " of ", experts, " experts do not fit w ", w.text(),
           ": w is [E O, I] of the same type"));
}

}  // namespace

Tensor gradient_of_source(const Tensor& dw, const Shape& shape, int64_t source, int64_t sources) {
  if (sources == 1 || dw.shape() == shape) return dw;
  if (dw.shape().rank() != 2 || dw.rows() != sources || dw.columns() < shape.elements()) {
    fail(cat("[grouped_linear] dw ", dw.text(), " has neither one matrix of ", shape.elements(),
             " elements nor a row for each of ", sources, " sources"));
  }
  const Tensor row = dw.rows(source, source + 1).reshape({dw.columns()});
  return row.rows(0, shape.elements()).reshape(shape);
}

Tensors<1> GroupedLinear::forward(Stream& stream, const Attributes& attributes,
                                  const Tensors<2>& inputs, const Tensors<1>& w, InputSaved& input,
                                  WeightSaved& weight) {
  const auto& [x, offsets] = inputs;
  check_weight(x, offsets, w[0], w[0].columns(), attributes.sources);
  const int64_t outputs = w[0].rows() / experts_of(offsets, attributes.sources);
  Tensor y(stream.device(), {x.rows(), outputs}, x.dtype());
  const Job job{.c = y,
                .a = x,
                .b = w[0],
                .offsets = offsets,
                .spec = {.transpose_b = true, .exact = true},
                .thin = attributes.thin,
                .sources = attributes.sources};
  on<const Job&>(stream, name, row_products_cpu, nullptr, job);
  input.offsets = offsets;
  weight = {.x = x, .offsets = offsets};
  return {y};
}

Tensors<2> GroupedLinear::grad_input(Stream& stream, const Attributes& attributes,
                                     const InputSaved& input, const Tensors<1>& w,
                                     const Tensors<1>& dy) {
  if (!dy[0]) return {};
  const int64_t experts = experts_of(input.offsets, attributes.sources);
  check_weight(dy[0], input.offsets, w[0], w[0].rows() / experts, attributes.sources);
  Tensor dx(stream.device(), {dy[0].rows(), w[0].columns()}, dy[0].dtype());
  on<const Job&>(stream, name, row_products_cpu, nullptr,
                 Job{.c = dx,
                     .a = dy[0],
                     .b = w[0],
                     .offsets = input.offsets,
                     .spec = {.exact = true},
                     .sources = attributes.sources});
  return {dx, Tensor()};
}

void GroupedLinear::grad_weight(Stream& stream, const Attributes& attributes,
                                const WeightSaved& weight, const Tensors<1>& dy,
                                const Tensors<1>& dw) {
  if (!dy[0]) return;
  const Tensor& x = weight.x;
  const int64_t experts = experts_of(weight.offsets, attributes.sources);
  check_tensor(name, "dy", dy[0], {x.rows(), dy[0].columns()}, x.dtype());
  const Shape shape = {experts * dy[0].columns(), x.columns()};
  check_tensor(name, "dw", gradient_of_source(dw[0], shape, 0, attributes.sources), shape,
               x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32);
  const MatmulSpec spec = {.transpose_a = true, .accumulate = true, .exact = true};
  on<const Job&>(stream, name, matrix_products_cpu, nullptr,
                 Job{.c = dw[0],
                     .a = dy[0],
                     .b = x,
                     .offsets = weight.offsets,
                     .spec = spec,
                     .sources = attributes.sources});
}

}  // namespace shoestring

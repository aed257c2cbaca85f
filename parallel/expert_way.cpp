#include "parallel/expert_way.h"

#include <cstring>
#include <numeric>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

struct Take {
  Tensor x, index, y;
};

void take_cpu(Stream& stream, const Take& arguments) {
  stream.run([&device = stream.device(), a = arguments] {
    const int32_t* index = a.index.data<int32_t>();
    const size_t bytes = static_cast<size_t>(a.y.columns()) * size_of(a.y.dtype());
    const int64_t rows = a.x.rows();
    parallel_for(device, a.y.rows(), rows_a_range(a.y.columns()), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::byte* to = a.y.raw() + static_cast<size_t>(i) * bytes;
        if (index[i] < 0) {
          std::memset(to, 0, bytes);
          continue;
        }
        if (index[i] >= rows) fail(cat("[take_rows] row ", index[i], " of ", rows));
        std::memcpy(to, a.x.raw() + static_cast<size_t>(index[i]) * bytes, bytes);
      }
    });
  });
}

struct Splits {
  std::span<const int64_t> sent, received;  // rows
};

std::vector<int64_t> times(std::span<const int64_t> rows, int64_t columns) {
  std::vector<int64_t> elements(rows.begin(), rows.end());
  for (int64_t& n : elements) n *= columns;
  return elements;
}
View view_of(const Tensor& x) { return {x.raw(), x.elements(), x.dtype()}; }
Buffer buffer_of(const Tensor& x) { return {x.raw(), x.elements(), x.dtype()}; }

// Hands the rows of x over to the ranks, into `arrived`.
void exchange(Stream& stream, Communicator& ranks, const Tensor& x, const Tensor& arrived,
              const Splits& rows) {
  ranks.all_to_all(view_of(x), times(rows.sent, x.columns()), buffer_of(arrived),
                   times(rows.received, x.columns()), stream);
  stream.run([x, arrived] {});  // keeps the memory until the ranks have met
}

Tensor gather(Stream& stream, const ExpertSlices& slices, const Tensor& own, MemoryKind kind) {
  const Tensor all(stream.device(), {total(slices.rows), own.columns()}, own.dtype(), kind);
  slices.ranks->all_gather(view_of(own), times(slices.rows, own.columns()), buffer_of(all), stream);
  stream.run([own, all] {});
  return all;
}

// This rank's rows of the sums.
Tensor add_slices(Stream& stream, const ExpertSlices& slices, const Tensor& all) {
  const int64_t rows = slices.rows[static_cast<size_t>(slices.ranks->rank())];
  const Tensor own(stream.device(), {rows, all.columns()}, all.dtype(), MemoryKind::communication);
  slices.ranks->reduce_scatter(view_of(all), times(slices.rows, all.columns()), buffer_of(own),
                               Reduce::sum, stream);
  stream.run([own, all] {});
  return own;
}

// Of rows that stay as they lie: the first ones, and zeros behind them when they come back.
Tensor widened(Stream& stream, const Tensor& y, int64_t rows) {
  const Tensor rest = y.rows(rows, y.rows());
  stream.run([rest] { std::memset(rest.raw(), 0, rest.bytes()); });
  return y.rows(0, rows);
}

void check_rows(std::string_view what, const Tensor& x, int64_t rows) {
  if (x.shape().rank() == 2 && x.rows() == rows) return;
  fail(
      cat("[expert_way] ", what, " ", x.text(), " has other rows than the ", rows, " of the plan"));
}

}  // namespace

Tensor row_numbers(Stream& stream, int64_t count) {
  return Tensor(stream.device(), {count}, Dtype::i32, MemoryKind::other);
}

int64_t total(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

Tensor take_rows(Stream& stream, const Tensor& x, const Tensor& index, MemoryKind kind) {
  const Take a{.x = x,
               .index = index,
               .y = Tensor(stream.device(), {index.elements(), x.columns()}, x.dtype(), kind)};
  on<const Take&>(stream, "take_rows", take_cpu, nullptr, a);
  return a.y;
}

Tensor travel(Stream& stream, const ExpertWay& way, const Tensor& start) {
  check_rows("start", start, way.legs.front().order.from);
  Tensor x = start;
  const bool sliced = way.slices.ranks != nullptr;
  for (size_t i = 0; i < way.legs.size(); ++i) {
    const ExpertLeg& leg = way.legs[i];
    const bool end = i + 1 == way.legs.size() && !way.order.there && !sliced;
    x = leg.order.there ? take_rows(stream, x, leg.order.there, MemoryKind::communication)
                        : x.rows(0, leg.order.to);
    const Tensor arrived(stream.device(), {total(leg.received), x.columns()}, x.dtype(),
                         end ? MemoryKind::activations : MemoryKind::communication);
    exchange(stream, *leg.ranks, x, arrived, {leg.sent, leg.received});
    x = arrived;
  }
  if (sliced) {
    x = gather(stream, way.slices, x,
               way.order.there ? MemoryKind::communication : MemoryKind::activations);
  }
  return way.order.there ? take_rows(stream, x, way.order.there, MemoryKind::activations) : x;
}

Tensor travel_back(Stream& stream, const ExpertWay& way, const Tensor& end) {
  check_rows("end", end, way.order.to);
  Tensor y =
      way.order.back ? take_rows(stream, end, way.order.back, MemoryKind::communication) : end;
  if (way.slices.ranks != nullptr) y = add_slices(stream, way.slices, y);
  for (auto leg = way.legs.rbegin(); leg != way.legs.rend(); ++leg) {
    const RowOrder& order = leg->order;
    const bool start = leg + 1 == way.legs.rend();
    const MemoryKind kind = start ? MemoryKind::activations : MemoryKind::communication;
    const int64_t rows = order.back ? order.to : order.from;
    const Tensor home(stream.device(), {rows, y.columns()}, y.dtype(),
                      order.back ? MemoryKind::communication : kind);
    const Tensor arrived = order.back ? home : widened(stream, home, order.to);
    exchange(stream, *leg->ranks, y, arrived, {leg->received, leg->sent});
    y = order.back ? take_rows(stream, home, order.back, kind) : home;
  }
  return y;
}

int64_t bytes_there(const ExpertWay& way, int64_t row) {
  int64_t rows = 0;
  for (const ExpertLeg& leg : way.legs) {
    rows += total(leg.sent) - leg.sent[static_cast<size_t>(leg.ranks->rank())];
  }
  return (rows + rows_given(way)) * row;
}

int64_t bytes_back(const ExpertWay& way, int64_t row) {
  int64_t rows = 0;
  for (const ExpertLeg& leg : way.legs) {
    rows += total(leg.received) - leg.received[static_cast<size_t>(leg.ranks->rank())];
  }
  if (const ExpertSlices& s = way.slices; s.ranks != nullptr) {
    rows += total(s.rows) - s.rows[static_cast<size_t>(s.ranks->rank())];
  }
  return rows * row;
}

int64_t rows_given(const ExpertWay& way) {
  const ExpertSlices& s = way.slices;
  if (s.ranks == nullptr) return 0;
  return s.rows[static_cast<size_t>(s.ranks->rank())] * (s.ranks->size() - 1);
}

}  // namespace shoestring

#include "io/box_index.h"

#include <algorithm>
#include <map>
#include <queue>
#include <utility>

namespace shoestring {
namespace {

using Flaw = BoxIndex::Flaw;

// The columns of one row and who holds them, while a line goes down the rows.
class Line {
 public:
  explicit Line(int64_t columns) : columns_(columns) {}

  int64_t next_end() const { return ends_.empty() ? INT64_MAX : ends_.top().first; }
  bool full() const { return held_ == columns_; }

  void leave(int64_t row) {
    while (next_end() <= row) {
      const auto at = spans_.find(ends_.top().second);
      held_ -= at->second.end - at->first;
      spans_.erase(at);
      ends_.pop();
    }
  }

  // The columns that somebody holds already, in elements from row `row` on.
  std::optional<Flaw> enter(const BoxRectangle& area, size_t piece) {
    const int64_t begin = area.column, end = area.column + area.columns;
    auto after = spans_.lower_bound(begin);
    if (after != spans_.begin() && std::prev(after)->second.end > begin) --after;
    if (after != spans_.end() && after->first < end) {
      const int64_t first = std::max(begin, after->first), last = std::min(end, after->second.end);
      const bool rows = first == 0 && last == columns_;
      const int64_t last_row = std::min(area.row + area.rows, after->second.last_row);
      return Flaw{.begin = area.row * columns_ + first,
                  .end = rows ? last_row * columns_ : area.row * columns_ + last,
                  .first = static_cast<int>(after->second.piece),
                  .second = static_cast<int>(piece)};
    }
    const int64_t last_row = area.row + area.rows;
    spans_.emplace_hint(after, begin, Span{.end = end, .last_row = last_row, .piece = piece});
    ends_.emplace(last_row, begin);
    held_ += area.columns;
    return std::nullopt;
  }

  // The first columns of `row` that nobody holds; nobody does down to row `next`, if all are free.
  Flaw hole(int64_t row, int64_t next) const {
    if (spans_.empty()) return {.begin = row * columns_, .end = next * columns_};
    int64_t begin = 0;
    auto at = spans_.begin();
    for (; at != spans_.end() && at->first == begin; ++at) begin = at->second.end;
    const int64_t end = at == spans_.end() ? columns_ : at->first;
    return {.begin = row * columns_ + begin, .end = row * columns_ + end};
  }

 private:
  struct Span {
    int64_t end, last_row;
    size_t piece;
  };
  using End = std::pair<int64_t, int64_t>;  // the row behind a span, the span's first column
  int64_t columns_, held_ = 0;
  std::map<int64_t, Span> spans_;
  std::priority_queue<End, std::vector<End>, std::greater<>> ends_;
};

}  // namespace

BoxIndex::BoxIndex(const Shape& shape, const std::vector<BoxRange>& pieces) : shape_(shape) {
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (const BoxRectangle& area : rectangles_of(shape, pieces[i])) held_.push_back({area, i});
  }
  std::stable_sort(held_.begin(), held_.end(),
                   [](const Held& a, const Held& b) { return a.area.row < b.area.row; });
  int64_t last = 0;
  for (const Held& h : held_) last_row_.push_back(last = std::max(last, h.area.row + h.area.rows));
}

std::optional<Flaw> BoxIndex::flaw() const {
  const int64_t rows = rows_of(shape_), columns = columns_of(shape_);
  if (columns == 0) return std::nullopt;
  Line line(columns);
  size_t i = 0;
  for (int64_t row = 0; row < rows;) {
    line.leave(row);
    for (; i < held_.size() && held_[i].area.row == row; ++i) {
      if (const auto flaw = line.enter(held_[i].area, held_[i].piece)) return flaw;
    }
    const int64_t next = std::min(line.next_end(), i < held_.size() ? held_[i].area.row : rows);
    if (!line.full()) return line.hole(row, std::min(next, rows));
    row = next;
  }
  return std::nullopt;
}

void BoxIndex::for_each_copy(const BoxRange& wanted,
                             const std::function<void(const Copy&)>& copy) const {
  for (const BoxRectangle& w : rectangles_of(shape_, wanted)) {
    const auto first = std::upper_bound(last_row_.begin(), last_row_.end(), w.row);
    for (auto at = held_.begin() + (first - last_row_.begin());
         at != held_.end() && at->area.row < w.row + w.rows; ++at) {
      const BoxRectangle& h = at->area;
      const int64_t row = std::max(w.row, h.row), column = std::max(w.column, h.column);
      const int64_t last_row = std::min(w.row + w.rows, h.row + h.rows);
      const int64_t last_column = std::min(w.column + w.columns, h.column + h.columns);
      if (row >= last_row || column >= last_column) continue;
      copy({.piece = at->piece,
            .rows = last_row - row,
            .columns = last_column - column,
            .from = h.at + (row - h.row) * h.stride + (column - h.column),
            .from_stride = h.stride,
            .to = w.at + (row - w.row) * w.stride + (column - w.column),
            .to_stride = w.stride});
    }
  }
}

}  // namespace shoestring

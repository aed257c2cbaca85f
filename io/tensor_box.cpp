#include "io/tensor_box.h"

#include <algorithm>

#include "core/text.h"

namespace shoestring {
namespace {

constexpr size_t most_runs_told = 4;

TensorBox whole_box(const Shape& shape) {
  return {.rows = {{.local = 0, .global = 0, .count = rows_of(shape)}},
          .first_column = 0,
          .columns = columns_of(shape)};
}

std::string complaint_of_box(const Shape& shape, const TensorBox& box) {
  const int64_t rows = rows_of(shape), columns = columns_of(shape);
  if (box.first_column < 0 || box.columns < 0 || box.first_column > columns ||
      box.columns > columns - box.first_column) {
    return cat(box.columns, " columns from ", box.first_column, " on are not among its ", columns);
  }
  int64_t local = 0, free = 0;
  for (const RowRun& run : box.rows) {
    if (run.count < 0 || run.global < 0 || run.global > rows || run.count > rows - run.global) {
      return cat(run.count, " rows from ", run.global, " on are not among its ", rows);
    }
    if (run.global < free) return cat("the rows from ", run.global, " on do not ascend");
    if (run.local != local) return cat("the rows from ", run.global, " on leave a gap before them");
    local += run.count;
    free = run.global + run.count;
  }
  return "";
}

// The part of `run` that lies in local rows [first, last), numbered from `first`.
RowRun clipped(const RowRun& run, int64_t first, int64_t last) {
  const int64_t begin = std::max(run.local, first), end = std::min(run.local + run.count, last);
  return {.local = begin - first,
          .global = run.global + (begin - run.local),
          .count = std::max<int64_t>(end - begin, 0)};
}

// Of a run, local elements [begin, end), which are in it; `origin` is the part's first one.
void add_rectangles(const TensorBox& box, const RowRun& run, FlatRange range, int64_t origin,
                    std::vector<BoxRectangle>& all) {
  const int64_t width = box.columns;
  int64_t at = range.begin;
  const auto add = [&](int64_t rows, int64_t columns) {
    if (rows == 0 || columns == 0) return;
    all.push_back({.row = run.global + (at / width - run.local),
                   .rows = rows,
                   .column = box.first_column + at % width,
                   .columns = columns,
                   .at = at - origin,
                   .stride = width});
    at += rows > 1 ? rows * width : columns;
  };
  if (at % width != 0) add(1, std::min(width - at % width, range.end - at));
  add((range.end - at) / width, width);
  add(1, range.end - at);
}

}  // namespace

bool operator==(const TensorBox& a, const TensorBox& b) {
  const auto same = [](const RowRun& x, const RowRun& y) {
    return x.local == y.local && x.global == y.global && x.count == y.count;
  };
  return a.first_column == b.first_column && a.columns == b.columns &&
         std::equal(a.rows.begin(), a.rows.end(), b.rows.begin(), b.rows.end(), same);
}

std::optional<TensorBox> box_of(const ParamInfo& info) {
  if (!info.shard.cut()) return std::nullopt;
  return TensorBox{.rows = info.shard.rows,
                   .first_column = info.shard.first_column,
                   .columns = columns_of(info.shape)};
}

const Shape& whole_shape(const ParamInfo& info) {
  return info.shard.cut() ? info.shard.whole : info.shape;
}

int64_t rows_of(const Shape& shape) {
  if (shape.rank() > 1) return shape.rows();
  return shape.elements();
}

int64_t columns_of(const Shape& shape) { return shape.rank() > 1 ? shape.columns() : 1; }

std::string complaint_of(const Shape& shape, const BoxRange& part) {
  if (part.box) {
    const std::string complaint = complaint_of_box(shape, *part.box);
    if (!complaint.empty()) return complaint;
  }
  const int64_t elements = part.box ? part.box->elements() : shape.elements();
  if (part.begin >= 0 && part.begin <= part.end && part.end <= elements) return "";
  return cat("elements ", part.begin, " to ", part.end, " are not among its ",
             part.box ? "part's " : "", elements);
}

std::string text_of(const BoxRange& part) {
  std::string text = cat("elements ", part.begin, " to ", part.end);
  if (!part.box) return text;
  append(text, " of rows");
  for (size_t i = 0; i < part.box->rows.size(); ++i) {
    if (i == most_runs_told) {
      append(text, " ...");
      break;
    }
    const RowRun& run = part.box->rows[i];
    append(text, " ", run.global, "-", run.global + run.count - 1);
  }
  append(text, ", columns ", part.box->first_column, "-",
         part.box->first_column + part.box->columns - 1);
  return text;
}

BoxRange simplified(const Shape& shape, BoxRange part) {
  if (!part.box || part.elements() == 0) return {.box = {}, .begin = part.begin, .end = part.end};
  const TensorBox& box = *part.box;
  const int64_t first = part.begin / box.columns, last = (part.end - 1) / box.columns + 1;
  TensorBox brief{.rows = {}, .first_column = box.first_column, .columns = box.columns};
  for (const RowRun& all : box.rows) {
    const RowRun run = clipped(all, first, last);
    if (run.count == 0) continue;
    RowRun* before = brief.rows.empty() ? nullptr : &brief.rows.back();
    const bool joined = before != nullptr && before->global + before->count == run.global;
    if (joined) before->count += run.count;
    if (!joined) brief.rows.push_back(run);
  }
  part.begin -= first * box.columns;
  part.end -= first * box.columns;
  if (brief.rows.size() > 1 || brief.columns != columns_of(shape)) {
    part.box = std::move(brief);
    return part;
  }
  const int64_t before = brief.rows[0].global * brief.columns;
  return {.box = {}, .begin = before + part.begin, .end = before + part.end};
}

std::vector<BoxRectangle> rectangles_of(const Shape& shape, const BoxRange& part) {
  std::vector<BoxRectangle> all;
  if (part.elements() == 0) return all;
  const TensorBox box = part.box ? *part.box : whole_box(shape);
  for (const RowRun& run : box.rows) {
    const FlatRange range{
        .begin = std::max(part.begin, run.local * box.columns),
        .end = std::min(part.end, (run.local + run.count) * box.columns),
    };
    if (range.begin < range.end) add_rectangles(box, run, range, part.begin, all);
  }
  return all;
}

}  // namespace shoestring

#include "launcher/saved_state.h"

#include <algorithm>

#include "core/check.h"
#include "core/model/parameters.h"
#include "core/text.h"
#include "optim/shard.h"
#include "parallel/expert_exchange.h"
#include "parallel/tensor_parallel.h"

namespace shoestring {
namespace {

std::string model_name(const std::string& name) { return cat("model/", name); }

int64_t first_column_of(const ParamInfo& info) {
  return info.shard.cut() ? info.shard.first_column : 0;
}

std::vector<RowRun> rows_held(const ParamInfo& info) {
  if (info.shard.cut()) return info.shard.rows;
  return {{.local = 0, .global = 0, .count = rows_of(info.shape)}};
}

bool columns_meet(const ParamInfo& a, const ParamInfo& b) {
  return first_column_of(a) < first_column_of(b) + columns_of(b.shape) &&
         first_column_of(b) < first_column_of(a) + columns_of(a.shape);
}

bool begins_before(const FlatRange& a, const FlatRange& b) { return a.begin < b.begin; }

std::vector<FlatRange> joined(std::vector<FlatRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), begins_before);
  std::vector<FlatRange> all;
  for (const FlatRange& range : ranges) {
    if (all.empty() || range.begin > all.back().end) {
      all.push_back(range);
    } else {
      all.back().end = std::max(all.back().end, range.end);
    }
  }
  return all;
}

// Rows [begin, end) of the whole that an earlier rank holds, in ascending order.
std::vector<FlatRange> rows_of_earlier(const ParamInfo& own,
                                       const std::vector<ParamInfo>& earlier) {
  std::vector<FlatRange> rows;
  for (const ParamInfo& e : earlier) {
    if (!columns_meet(own, e)) continue;
    const bool all =
        first_column_of(e) <= first_column_of(own) &&
        first_column_of(own) + columns_of(own.shape) <= first_column_of(e) + columns_of(e.shape);
    check(all, cat("ranks hold columns of ", own.name, " that overlap and are not the same"));
    for (const RowRun& run : rows_held(e)) rows.push_back({run.global, run.global + run.count});
  }
  return joined(std::move(rows));
}

// The rank's own rows, as it numbers them, that no earlier rank holds.
std::vector<FlatRange> first_rows(const ParamInfo& own, const std::vector<ParamInfo>& earlier) {
  const std::vector<FlatRange> taken = rows_of_earlier(own, earlier);
  std::vector<FlatRange> rows;
  auto next = taken.begin();
  for (const RowRun& run : rows_held(own)) {
    const int64_t shift = run.local - run.global, end = run.global + run.count;
    int64_t at = run.global;
    while (next != taken.end() && next->begin < end) {
      if (next->begin > at) rows.push_back({at + shift, next->begin + shift});
      at = std::max(at, std::min(next->end, end));
      if (next->end > end) break;  // it reaches into our next run
      ++next;
    }
    if (at < end) rows.push_back({at + shift, end + shift});
  }
  return joined(std::move(rows));
}

// What both lists have; each is ascending and disjoint.
std::vector<FlatRange> common(const std::vector<FlatRange>& a, const std::vector<FlatRange>& b) {
  std::vector<FlatRange> both;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const FlatRange meet{std::max(a[i].begin, b[j].begin), std::min(a[i].end, b[j].end)};
    if (meet.begin < meet.end) both.push_back(meet);
    a[i].end < b[j].end ? ++i : ++j;
  }
  return both;
}

// Those of the ranges' elements that are the parameter's, as it numbers them.
std::vector<FlatRange> inside(const Param& p, const std::vector<FlatRange>& ranges) {
  std::vector<FlatRange> own;
  for (const FlatRange& range : ranges) {
    const int64_t begin = std::max(range.begin, p.offset) - p.offset;
    const int64_t end = std::min(range.end, p.offset + p.elements) - p.offset;
    if (begin < end) own.push_back({begin, end});
  }
  return own;
}

// Of the rank's part of the parameter, or of its state: elements [begin, end), at `data`.
TensorPiece piece_of(const Param& p, std::string name, FlatRange range, Dtype dtype,
                     const std::byte* data) {
  const BoxRange part = simplified(whole_shape(p.info), {box_of(p.info), range.begin, range.end});
  return {.name = std::move(name),
          .shape = whole_shape(p.info),
          .begin = part.begin,
          .end = part.end,
          .dtype = dtype,
          .data = data,
          .box = part.box};
}

void add_masters(const ParamStore& store, const FlatSpan<float>& masters, const SavedShare& share,
                 std::vector<TensorPiece>& pieces) {
  for (const Param& p : store.params()) {
    for (const FlatRange& range : written_ranges(p, share)) {
      const float* from = masters.at({p.offset + range.begin, p.offset + range.end});
      const auto* data = reinterpret_cast<const std::byte*>(from);
      pieces.push_back(piece_of(p, model_name(p.info.name), range, Dtype::f32, data));
    }
  }
}

void add_model_states(const ParamStore& store, const SavedShare& share,
                      std::vector<TensorPiece>& pieces) {
  for (const ModelState& s : store.states()) {
    if (!share.writes_state || !share.writes_state(s.name)) continue;
    pieces.push_back({.name = model_name(s.name),
                      .shape = s.values.shape(),
                      .begin = 0,
                      .end = s.values.elements(),
                      .dtype = Dtype::f32,
                      .data = s.values.raw()});
  }
}

void add_state(const ParamStore& store, const StateTensor& state, const SavedShare& share,
               std::vector<TensorPiece>& pieces) {
  const Param& p = store.param(state.name);
  const auto size = static_cast<int64_t>(size_of(state.values.dtype()));
  for (const FlatRange& range : common({{state.begin, state.end}}, written_ranges(p, share))) {
    const std::byte* data = state.values.raw() + (range.begin - state.begin) * size;
    pieces.push_back(piece_of(p, checkpoint_name(state), range, state.values.dtype(), data));
  }
}

}  // namespace

EarlierHolders::EarlierHolders(const ModelConfig& model, int r, int t,
                               std::set<std::string> of_earlier_stages)
    : model_(model), r_(r), t_(t), of_earlier_stages_(std::move(of_earlier_stages)) {
  for (ParamInfo& p : parameters_of(model, whole_model(model))) {
    std::string name = p.name;
    whole_.emplace(std::move(name), std::move(p));
  }
}

std::vector<ParamInfo> EarlierHolders::operator()(const ParamInfo& own) const {
  const ParamInfo& whole = whole_.at(own.name);
  if (of_earlier_stages_.contains(own.name)) return {whole};
  std::vector<ParamInfo> parts;
  for (int i = 0; i < r_ && !is_of_experts(own); ++i) {
    parts.push_back(std::move(shard_parameters(model_, {whole}, i, t_)[0]));
  }
  return parts;
}

std::vector<FlatRange> written_ranges(const Param& p, const SavedShare& share) {
  const std::vector<ParamInfo> earlier =
      share.earlier ? share.earlier(p.info) : std::vector<ParamInfo>();
  std::vector<FlatRange> first = first_rows(p.info, earlier);
  const int64_t width = columns_of(p.info.shape);
  for (FlatRange& rows : first) rows = {rows.begin * width, rows.end * width};
  std::vector<FlatRange> written;
  for (const OwnedRanges& owned : share.owned) {
    if (owned.replica > 0) continue;
    const std::vector<FlatRange> own = common(inside(p, owned.ranges), first);
    written.insert(written.end(), own.begin(), own.end());
  }
  std::sort(written.begin(), written.end(), begins_before);
  return written;
}

std::vector<TensorPiece> pieces_of(const ParamStore& store, const FlatSpan<float>& masters,
                                   std::span<const StateTensor> state, const SavedShare& share) {
  std::vector<TensorPiece> pieces;
  add_masters(store, masters, share, pieces);
  add_model_states(store, share, pieces);
  for (const StateTensor& s : state) add_state(store, s, share, pieces);
  return pieces;
}

void restore_pieces(ParamStore& store, const FlatSpan<float>& masters,
                    std::span<const StateTensor> state, const SavedShare& share,
                    const Checkpoint& checkpoint) {
  for (const Param& p : store.params()) {
    for (const OwnedRanges& owned : share.owned) {
      for (const FlatRange& range : inside(p, owned.ranges)) {
        checkpoint.read_box(model_name(p.info.name), {box_of(p.info), range.begin, range.end},
                            Dtype::f32,
                            reinterpret_cast<std::byte*>(
                                masters.at({p.offset + range.begin, p.offset + range.end})));
      }
    }
  }
  for (const ModelState& s : store.states()) {
    checkpoint.read(model_name(s.name), 0, s.values.elements(), Dtype::f32, s.values.raw());
  }
  for (const StateTensor& s : state) {
    const Param& p = store.param(s.name);
    checkpoint.read_box(checkpoint_name(s), {box_of(p.info), s.begin, s.end}, s.values.dtype(),
                        s.values.raw());
  }
}

std::vector<std::pair<std::string, Shape>> saved_tensors(const ModelConfig& model) {
  std::vector<std::pair<std::string, Shape>> tensors;
  for (const ParamInfo& p : parameters_of(model, whole_model(model))) {
    tensors.emplace_back(model_name(p.name), p.shape);
  }
  for (const auto& [name, shape] : states_of(model, whole_model(model))) {
    tensors.emplace_back(model_name(name), shape);
  }
  return tensors;
}

std::vector<std::pair<std::string, Shape>> saved_tensors(const ParamStore& store) {
  std::vector<std::pair<std::string, Shape>> tensors;
  for (const Param& p : store.params()) {
    tensors.emplace_back(model_name(p.info.name), whole_shape(p.info));
  }
  for (const ModelState& s : store.states()) {
    tensors.emplace_back(model_name(s.name), s.values.shape());
  }
  return tensors;
}

std::vector<std::pair<std::string, Shape>> saved_tensors(const ModelConfig& model,
                                                         const OptimConfig& optim) {
  std::vector<std::pair<std::string, Shape>> tensors = saved_tensors(model);
  for (const ParamInfo& p : parameters_of(model, whole_model(model))) {
    std::vector<std::string> kinds = {"m", "v"};
    if (updated_by_muon(p, optim)) kinds = {"momentum"};
    if (optim.ema_decay > 0) kinds.push_back("ema");
    for (std::string& kind : kinds) {
      const StateTensor state{.name = p.name, .kind = std::move(kind), .values = {}};
      tensors.emplace_back(checkpoint_name(state), p.shape);
    }
  }
  return tensors;
}

std::string checkpoint_name(const StateTensor& state) {
  return cat("optim/", state.kind, "/", state.name);
}

}  // namespace shoestring

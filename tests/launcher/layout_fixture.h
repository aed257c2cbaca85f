#pragma once
// One rank of a mesh as the tests of checkpoints across layouts have it: its part of a small model,
// an optimiser on what it owns, and gradients that only depend on step, name and place in the
// whole. No forward pass: what is saved, by whom, and what comes back.

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/model/parameters.h"
#include "core/random.h"
#include "launcher/saved_state.h"
#include "optim/ema.h"
#include "optim/optimizer.h"
#include "parallel/expert_exchange.h"
#include "parallel/mesh.h"
#include "parallel/reducing_source.h"
#include "parallel/tensor_parallel.h"

namespace shoestring {

struct TestLayout {
  MeshConfig mesh = {};
  int ranks = 1;
  bool sharded = false;  // ZeRO
  bool mirror = false;   // each stage on two ranks, as in DualPipe
};

struct TestModel {
  ModelConfig model;
  OptimConfig optim;
};

class TestRank {
 public:
  TestRank(const TestModel& test, const TestLayout& layout, const Mesh& mesh, int rank)
      : device_(DeviceKind::cpu, 0, 1), place_(mesh.place(rank)) {
    const int p = place_[MeshAxis::pp], stages = mesh.extent(MeshAxis::pp);
    std::vector<ParamInfo> infos;
    std::set<std::string> earlier;
    for (int other = 0; other <= p; ++other) {
      for (ParamInfo& info : held_by(test.model, layout, other, stages)) {
        if (other < p) earlier.insert(info.name);
        if (other == p) infos.push_back(part_of(test.model, mesh, std::move(info)));
      }
    }
    store_ = std::make_unique<ParamStore>(device_, std::move(infos), Dtype::f32);
    for (int stage : stages_of(layout, p, stages)) {
      for (const auto& [name, shape] : states_of(test.model, chunk_of(test.model, stage, stages))) {
        store_->state(name, shape);
      }
    }
    own(test.optim, layout, mesh, rank);
    const int t = mesh.extent(MeshAxis::tp);
    share_.earlier = EarlierHolders(test.model, place_[MeshAxis::tp], t, earlier);
    const bool first = mesh.index_in(MeshGroup::stage, rank) == 0;
    share_.writes_state = [first, states = states_of_earlier(test.model, layout, p, stages)](
                              const std::string& name) { return first && !states.contains(name); };
    std::vector<FlatRange> owned;
    for (const OwnedRanges& o : share_.owned) {
      owned.insert(owned.end(), o.ranges.begin(), o.ranges.end());
    }
    std::sort(owned.begin(), owned.end(),
              [](const FlatRange& a, const FlatRange& b) { return a.begin < b.begin; });
    optimizer_ = std::make_unique<Optimizer>(device_, store_->params(), test.optim, owned, 7);
    store_->initialise(7);
    average_ = std::make_unique<WeightAverage>(device_, store_->params(), owned,
                                               FlatSpan<const float>{store_->master()}, 0.9);
  }

  // One update with the gradients of step number `step`, from 1.
  void update(int64_t step) {
    for (const Param& p : store_->params()) {
      fill(p.info, RandomStream(static_cast<uint64_t>(step), p.info.name),
           store_->gradient(p).data<float>());
    }
    optimizer_->update({.step = step,
                        .lr = 1e-2,
                        .master = {store_->master()},
                        .gradients = {store_->gradients()}});
    average_->update({store_->master()});
    for (const ModelState& s : store_->states()) {
      const RandomStream stream(static_cast<uint64_t>(step), s.name);
      for (int64_t i = 0; i < s.values.elements(); ++i) {
        s.values.data<float>()[i] += static_cast<float>(stream.normal(static_cast<uint64_t>(i)));
      }
    }
  }

  // Anything else than what a checkpoint brings.
  void spoil() {
    for (float& x : store_->master()) x = -77;
    for (const StateTensor& s : state()) std::memset(s.values.raw(), 0x5a, s.values.bytes());
    for (const ModelState& s : store_->states())
      std::memset(s.values.raw(), 0x5a, s.values.bytes());
  }

  std::vector<StateTensor> state() const {
    std::vector<StateTensor> all = optimizer_->state();
    for (StateTensor& s : average_->state()) all.push_back(std::move(s));
    return all;
  }
  // Bytes of what this rank owns and holds: what it needs of a checkpoint.
  int64_t bytes_owned() const {
    int64_t bytes = 0;
    for (const Param& p : store_->params()) {
      for (const OwnedRanges& o : share_.owned) {
        for (const FlatRange& r : o.ranges) {
          bytes += 4 * std::max<int64_t>(
                           0, std::min(r.end, p.offset + p.elements) - std::max(r.begin, p.offset));
        }
      }
    }
    for (const StateTensor& s : state()) bytes += static_cast<int64_t>(s.values.bytes());
    for (const ModelState& s : store_->states()) bytes += static_cast<int64_t>(s.values.bytes());
    return bytes;
  }
  ParamStore& store() { return *store_; }
  const SavedShare& share() const { return share_; }
  SavedShare& share() { return share_; }

 private:
  static Chunk chunk_of(const ModelConfig& m, int stage, int stages) {
    std::vector<int64_t> blocks(static_cast<size_t>(stages), m.layers / stages);
    for (int64_t s = 0; s < m.layers % stages; ++s) ++blocks[static_cast<size_t>(s)];
    return cut(m, blocks).at(static_cast<size_t>(stage));
  }
  static std::vector<int> stages_of(const TestLayout& layout, int p, int stages) {
    if (!layout.mirror || stages - 1 - p == p) return {p};
    return {p, stages - 1 - p};
  }
  static std::vector<ParamInfo> held_by(const ModelConfig& m, const TestLayout& layout, int p,
                                        int stages) {
    std::vector<ParamInfo> all;
    std::set<std::string> names;
    for (int stage : stages_of(layout, p, stages)) {
      for (ParamInfo& info : parameters_of(m, chunk_of(m, stage, stages))) {
        if (names.insert(info.name).second) all.push_back(std::move(info));
      }
    }
    return all;
  }
  static std::set<std::string> states_of_earlier(const ModelConfig& m, const TestLayout& layout,
                                                 int p, int stages) {
    std::set<std::string> names;
    for (int other = 0; other < p; ++other) {
      for (int stage : stages_of(layout, other, stages)) {
        for (const auto& [name, shape] : states_of(m, chunk_of(m, stage, stages))) {
          names.insert(name);
        }
      }
    }
    return names;
  }

  ParamInfo part_of(const ModelConfig& m, const Mesh& mesh, ParamInfo info) const {
    if (is_of_experts(info)) {
      return part_of_experts(std::move(info), m.moe.experts,
                             {.rank = place_[MeshAxis::ep],
                              .ranks = mesh.extent(MeshAxis::ep),
                              .slice = place_[MeshAxis::etp],
                              .slices = mesh.extent(MeshAxis::etp)});
    }
    return shard_parameters(m, {std::move(info)}, place_[MeshAxis::tp],
                            mesh.extent(MeshAxis::tp))[0];
  }

  // Dense parameters and experts have groups of their own.
  void own(const OptimConfig& optim, const TestLayout& layout, const Mesh& mesh, int rank) {
    const auto whole = [&](const Param& p) { return updated_by_muon(p.info, optim); };
    for (bool experts : {false, true}) {
      const MeshAxis shard = experts ? MeshAxis::edp_shard : MeshAxis::dp_shard;
      OwnedRanges owned;
      int ranks = 1, index = 0;
      if (layout.sharded) {
        ranks = mesh.extent(shard), index = place_[shard];
        const int copies = mesh.extent(MeshAxis::cp);
        owned.replica = experts ? place_[MeshAxis::edp_replicate]
                                : place_[MeshAxis::cp] + copies * place_[MeshAxis::dp_replicate];
      } else {
        owned.replica = mesh.index_in(experts ? MeshGroup::edp : MeshGroup::dp_cp, rank);
      }
      add_shares(experts, whole, ranks, index, owned.ranges);
      share_.owned.push_back(std::move(owned));
    }
  }

  // Share `index` of the parameters of one kind, in a numbering of their own: ranks that hold the
  // same experts may hold other parts of the rest.
  void add_shares(bool experts, const std::function<bool(const Param&)>& whole, int ranks,
                  int index, std::vector<FlatRange>& owned) const {
    std::vector<ParamExtent> extents;
    std::vector<int64_t> shifts;
    int64_t elements = 0;
    for (const Param& p : store_->params()) {
      if (is_of_experts(p.info) != experts) continue;
      extents.push_back({.begin = elements, .end = elements + p.elements, .whole = whole(p)});
      shifts.push_back(p.offset - elements);
      elements +=
          (p.elements + ParamStore::alignment - 1) / ParamStore::alignment * ParamStore::alignment;
    }
    for (const FlatRange& r :
         ShardLayout(FlatRange{0, elements}, extents, 8192, ranks).owned(index)) {
      for (size_t i = 0; i < extents.size(); ++i) {
        const int64_t begin = std::max(r.begin, extents[i].begin);
        const int64_t end = std::min(r.end, extents[i].end);
        if (begin < end) owned.push_back({begin + shifts[i], end + shifts[i]});
      }
    }
  }

  // Each element from its number in the whole parameter.
  static void fill(const ParamInfo& info, const RandomStream& stream, float* values) {
    const BoxRange part{box_of(info), 0, info.shape.elements()};
    for (const BoxRectangle& r : rectangles_of(whole_shape(info), part)) {
      for (int64_t i = 0; i < r.rows; ++i) {
        for (int64_t j = 0; j < r.columns; ++j) {
          const int64_t number = (r.row + i) * columns_of(whole_shape(info)) + r.column + j;
          values[r.at + i * r.stride + j] =
              static_cast<float>(stream.normal(static_cast<uint64_t>(number)));
        }
      }
    }
  }

  Device device_;
  MeshPlace place_;
  std::unique_ptr<ParamStore> store_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<WeightAverage> average_;
  SavedShare share_;
};

}  // namespace shoestring

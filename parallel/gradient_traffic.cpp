#include "parallel/gradient_traffic.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "parallel/model_stages.h"
#include "parallel/param_units.h"
#include "parallel/passes.h"
#include "parallel/sharding_pass.h"

namespace shoestring {
namespace {

using Op = Call::Op;
constexpr int64_t number = 4;  // bytes of a gradient's element

class GradientTraffic {
 public:
  GradientTraffic(const StepFacts& facts, const Mesh& mesh, const Schedule& schedule,
                  const std::vector<Chunk>& chunks, TrafficForecast& sum)
      : f_(facts),
        m_(facts.model),
        mesh_(mesh),
        where_(schedule.where),
        chunks_(chunks),
        t_(mesh.extent(MeshAxis::tp)),
        c_(mesh.extent(MeshAxis::cp)),
        e_(mesh.extent(MeshAxis::ep)),
        s_(mesh.extent(MeshAxis::etp)),
        data_(mesh.size(MeshGroup::dp)),
        sum_(sum) {
    if (facts.sharing.zero_stage < 3 || where_.ranks == 1) return;
    schedule_ = add_sharding(add_transfers(schedule), {.reduce_each = each_slot()});
  }

  // Of a rank of each pipeline, with the groups of parallel/step_gradients.h.
  void add_gradients(int rank) {
    std::vector<int> stages = stages_of(where_, rank);
    std::sort(stages.begin(), stages.end());
    const SharedBy sharing = embedding_sharing(m_, where_, stages);
    const ExpertPart part{.ranks = static_cast<int>(e_), .slices = static_cast<int>(s_)};
    for (int r = 0; r < t_; ++r) {
      std::set<std::string> listed;
      if (sharing != SharedBy::nobody) listed.insert("embedding.weight");
      std::vector<ParamInfo> dense, experts;
      for (size_t i = 0; i < stages.size(); ++i) {
        for (ParamInfo& p : shard_parameters(m_, parameters_of(m_, chunks_, {stages[i]}), r,
                                             static_cast<int>(t_))) {
          if (!listed.insert(p.name).second) continue;
          if (is_of_experts(p)) p = part_of_experts(std::move(p), m_.moe.experts, part);
          (is_of_experts(p) ? experts : dense).push_back(std::move(p));
        }
        if (!each_slot() && i + 1 < stages.size()) continue;
        if (r == 0) add_tensor_sums(dense);
        if (is_first_copy(where_, rank)) {
          add_reduction(dense, replicas(rank, false));
          if (r == 0) add_reduction(experts, replicas(rank, true));
          add_weights(dense, r == 0 ? experts : std::vector<ParamInfo>(), rank, stages[i]);
        }
        dense.clear();
        experts.clear();
      }
      if (sharing == SharedBy::nobody) continue;
      for (const ParamInfo& p :
           shard_parameters(m_, parameters_of(m_, chunks_, stages), r, static_cast<int>(t_))) {
        if (p.name != "embedding.weight") continue;
        add_shared(rank, p.shape.elements(), sharing);
        if (!is_first_copy(where_, rank)) continue;
        add_reduction({p}, replicas(rank, false));
        add_weights({p}, {}, rank, -1);
      }
    }
  }

 private:
  void add(Op op, int64_t bytes) { sum_.bytes_sent[static_cast<size_t>(op)] += bytes; }
  bool both_ways() const { return where_.order == StageOrder::both_ways; }
  bool each_slot() const { return reduces_each_slot(f_.sharing); }

  // What the first and the last rank of a pipeline add up of a matrix that both use.
  void add_shared(int rank, int64_t elements, SharedBy sharing) {
    const int64_t groups = mesh_.size(MeshGroup::dp_cp);
    const int64_t slots = f_.micro_batches / (data_ * (both_ways() ? 2 : 1));
    if (rank > 0) return;
    if (sharing == SharedBy::ends) {
      add(Op::all_reduce, (each_slot() ? slots : 1) * 2 * elements * number * groups);
    } else if (sharing == SharedBy::mirrored && each_slot()) {
      add(Op::reduce_scatter, slots * 2 * elements * number * groups);
    }
  }

  // Parameters of which all tensor ranks hold as much.
  void add_tensor_sums(const std::vector<ParamInfo>& params) {
    int64_t sums = 0;  // elements, times the ranks that each is sent to
    for (const ParamInfo& p : params) {
      const int64_t elements = p.shape.elements();
      switch (gradient_sum_of(m_, p, static_cast<int>(t_))) {
        case GradientSum::none:
          break;
        case GradientSum::group:
          sums += elements * (t_ - 1);
          break;
        case GradientSum::shared_heads:
          sums += elements / p.shape[0] * (p.shape[0] - p.shard.rows[1].local) * (t_ - m_.kv_heads);
          break;
      }
    }
    // A copy of a stage sees half of the micro-batches. A data rank without any sums nothing.
    const int64_t times =
        each_slot() ? f_.micro_batches / (both_ways() ? 2 : 1) : std::min(data_, f_.micro_batches);
    add(Op::all_reduce, times * c_ * 2 * sums * number);
  }

  // Ranks that hold the same parameters: `shards` that share them out, times `replicas`.
  struct Holders {
    int64_t shards = 1, replicas = 1, data_ranks = 1, sources = 1, groups = 1;
    int64_t ranks() const { return shards * replicas; }
  };
  Holders replicas(int rank, bool experts) const {
    const int64_t copies = copies_of(where_, rank);
    const int64_t replicated =
        mesh_.extent(experts ? MeshAxis::edp_replicate : MeshAxis::dp_replicate);
    const int64_t size = mesh_.size(experts ? MeshGroup::edp : MeshGroup::dp_cp);
    Holders holders{.data_ranks = data_ * copies};
    if (replicated > 1) {
      holders.shards = size / replicated, holders.replicas = replicated * copies;
    } else {
      holders.shards = size * copies;
    }
    if (!experts) return holders;
    holders.groups = mesh_.size(MeshGroup::stage) / size;
    const int64_t sources = e_ * s_;
    if (f_.sharing.exact && sources * holders.ranks() == holders.data_ranks) {
      holders.sources = sources;
    }
    return holders;
  }

  void add_reduction(const std::vector<ParamInfo>& params, const Holders& of) {
    if (of.ranks() == 1 || params.empty()) return;
    std::vector<ParamExtent> extents;
    int64_t elements = 0;
    for (const ParamInfo& info : params) {
      const Param p{.info = info, .offset = elements, .elements = info.shape.elements()};
      extents.push_back({elements, elements + p.elements, f_.whole != nullptr && f_.whole(p)});
      elements +=
          (p.elements + ParamStore::alignment - 1) / ParamStore::alignment * ParamStore::alignment;
    }
    const int64_t shared_out = elements * (of.shards - 1) * of.replicas * of.groups;
    const int64_t slots = (f_.micro_batches + of.data_ranks - 1) / of.data_ranks;
    if (f_.sharing.exact) {
      DataParallelConfig config = f_.sharing;
      config.slots_overlap = where_.ranks > 1 || of.sources > 1;
      const std::vector<FlatRange> units = unit_ranges(params, of);
      const ShardLayout layout = shards_of(
          config, {{0, elements}, extents, units, of.sources, static_cast<int>(of.shards)});
      for (int64_t slot = 0; slot < slots; ++slot) add_exact(layout, of, slot);
    } else {
      const int64_t times = each_slot() ? slots : 1;
      add(Op::reduce_scatter, times * shared_out * number);
      add(Op::all_reduce, times * 2 * elements * (of.replicas - 1) * of.groups * number);
    }
    if (f_.sharing.zero_stage == 0) {
      add(Op::all_gather, shared_out * number);
    } else if (f_.updates && f_.sharing.zero_stage < 3) {
      add(Op::all_gather, shared_out * (f_.dtype == Dtype::bf16 ? 2 : number));
    }
  }

  // From stage 2 on buckets are units (parallel/step_gradients.cpp); experts of several sources are
  // units by themselves.
  std::vector<FlatRange> unit_ranges(const std::vector<ParamInfo>& params, const Holders& of) {
    if (f_.sharing.zero_stage < 2) return {};
    Device device(DeviceKind::cpu, 0, 1);
    const ParamStore store(device, params, Dtype::f32,
                           {.weights = false, .masters = false, .gradients = false});
    const auto count = static_cast<int>(params.size());
    std::vector<ParamUnit> units;
    for (int i = 0; i < count; ++i) {
      if (of.sources == 1 && i > 0) break;
      const std::vector<ParamUnit> more = units_of(store, i, of.sources == 1 ? count : i + 1);
      units.insert(units.end(), more.begin(), more.end());
    }
    return ranges_of(units);
  }

  // Stage 3: the gathers of what one stage reads (-1: of what several share).
  void add_weights(const std::vector<ParamInfo>& dense, const std::vector<ParamInfo>& experts,
                   int rank, int stage) {
    if (f_.sharing.zero_stage < 3) return;
    std::vector<ParamInfo> all = dense;
    all.insert(all.end(), experts.begin(), experts.end());
    Device device(DeviceKind::cpu, 0, 1);
    const ParamStore store(device, std::move(all), Dtype::f32,
                           {.weights = false, .masters = false, .gradients = false});
    const auto border = static_cast<int>(dense.size()),
               end = static_cast<int>(store.params().size());
    for (const bool of_experts : {false, true}) {
      const Holders of = replicas(rank, of_experts);
      int64_t elements = 0;  // that are gathered in a step
      for (const ParamUnit& unit :
           units_of(store, of_experts ? border : 0, of_experts ? end : border)) {
        elements += unit.range.elements() * gathers_of(rank, stage, unit.held, of);
      }
      add(Op::all_gather, elements * (of.shards - 1) * of.replicas * of.groups *
                              (f_.dtype == Dtype::bf16 ? 2 : number));
    }
  }

  int64_t gathers_of(int rank, int stage, bool held, const Holders& of) const {
    if (where_.ranks == 1) {
      return (f_.micro_batches + of.data_ranks - 1) / of.data_ranks * (held ? 1 : 2);
    }
    int64_t times = 0, users = 0;
    for (const Instruction& i : schedule_.ranks[static_cast<size_t>(rank)]) {
      const bool shares = i.stage == 0 || i.stage + 1 == where_.stages();
      if (stage < 0 ? !shares : i.stage != stage) continue;
      if (i.what == Do::G && users++ == 0) ++times;
      if (i.what == Do::R) --users;
    }
    return times;
  }

  // In the last slot some ranks may have no micro-batch to send.
  void add_exact(const ShardLayout& layout, const Holders& of, int64_t slot) {
    const int64_t active = std::min(of.data_ranks, f_.micro_batches - slot * of.data_ranks);
    const int64_t terms =
        of.sources > 1 ? active : (active * of.ranks() + of.data_ranks - 1) / of.data_ranks;
    for (const ShardLayout::Bucket& bucket : layout.buckets()) {
      for (int64_t source = 0; source < of.sources; ++source) {
        const int64_t senders = std::max<int64_t>(terms - source + of.sources - 1, 0) / of.sources;
        for (int64_t replica = 0; replica < of.replicas; ++replica) {
          const int64_t here = std::clamp<int64_t>(senders - replica * of.shards, 0, of.shards);
          const auto begin = bucket.counts.begin();
          const int64_t kept = std::accumulate(begin, begin + here, int64_t{0});
          add(Op::all_to_all, (here * bucket.range.elements() - kept) * number * of.groups);
        }
        add(Op::all_gather,
            senders * bucket.range.elements() * (of.replicas - 1) * number * of.groups);
      }
    }
  }

  const StepFacts& f_;
  const ModelConfig& m_;
  const Mesh& mesh_;
  const Placement& where_;
  const std::vector<Chunk>& chunks_;
  int64_t t_, c_, e_, s_, data_;
  TrafficForecast& sum_;
  Schedule schedule_;  // of stage 3 in pipelines, with gathers
};

}  // namespace

int copies_of(const Placement& where, int rank) {
  return where.order == StageOrder::both_ways && rank != where.ranks - 1 - rank ? 2 : 1;
}

bool is_first_copy(const Placement& where, int rank) {
  return where.order != StageOrder::both_ways || rank <= where.ranks - 1 - rank;
}

void add_gradient_traffic(const StepFacts& facts, const Mesh& mesh, const Schedule& schedule,
                          const std::vector<Chunk>& chunks, TrafficForecast& sum) {
  GradientTraffic traffic(facts, mesh, schedule, chunks, sum);
  for (int rank = 0; rank < schedule.where.ranks; ++rank) traffic.add_gradients(rank);
}

}  // namespace shoestring

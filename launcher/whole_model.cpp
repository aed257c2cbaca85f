#include "launcher/whole_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/whereabouts.h"
#include "parallel/ordered_sums.h"

namespace shoestring {
namespace {

// Elements [begin, begin + count) of a whole parameter, from those of a part on.
struct Run {
  int64_t from = 0, begin = 0, count = 0;
};

// Where a range of a part's elements stands in the whole.
std::vector<Run> runs_of(const ParamInfo& info, const ParamRange& range) {
  const ParamShard& s = info.shard;
  if (!s.cut()) return {{range.begin, range.begin, range.end - range.begin}};
  const bool vector = info.shape.rank() == 1;
  const int64_t here = vector ? 1 : info.shape.columns(), all = vector ? 1 : s.whole.columns();
  std::vector<Run> runs;
  for (const RowRun& rows : s.rows) {
    // All its rows at once where they are whole, else each by itself.
    const int64_t step = here == all ? rows.count : 1;
    for (int64_t r = 0; r < rows.count; r += step) {
      const int64_t first = (rows.local + r) * here, last = first + step * here;
      const int64_t begin = std::max(first, range.begin), end = std::min(last, range.end);
      if (begin >= end) continue;
      runs.push_back(
          {begin, (rows.global + r) * all + s.first_column + begin - first, end - begin});
    }
  }
  return runs;
}

// What one rank has of a parameter.
struct Part {
  std::vector<int64_t> table;  // begin and count in the whole
  std::vector<std::byte> bytes;
};

template <class T>
Part part_of(const RankState& rank, const std::vector<ParamRange>& counted, const std::string& name,
             const FlatSpan<T>& local) {
  Part part;
  for (const ParamRange& range : counted) {
    const Param& p = rank.store->params()[static_cast<size_t>(range.param)];
    if (p.info.name != name) continue;
    for (const Run& run : runs_of(p.info, range)) {
      part.table.insert(part.table.end(), {run.begin, run.count});
      const int64_t begin = p.offset + run.from;
      const std::span values(local.at({begin, begin + run.count}), static_cast<size_t>(run.count));
      const auto bytes = std::as_bytes(values);
      part.bytes.insert(part.bytes.end(), bytes.begin(), bytes.end());
    }
  }
  return part;
}

// The first rank gets everybody's bytes, by rank.
std::vector<std::vector<std::byte>> collect(RankState& rank, const std::vector<std::byte>& own) {
  const int64_t bytes = static_cast<int64_t>(own.size());
  const auto sizes = gather_values<int64_t>(rank.ranks, rank.communication, std::span(&bytes, 1));
  std::vector<std::vector<std::byte>> all(sizes.size());
  std::vector<Transfer> transfers;
  const int me = rank.ranks.rank();
  if (me == 0) {
    for (size_t r = 1; r < sizes.size(); ++r) {
      all[r].resize(static_cast<size_t>(sizes[r]));
      if (sizes[r] > 0) {
        transfers.push_back(
            Transfer::receive(static_cast<int>(r), {all[r].data(), sizes[r], Dtype::u8}));
      }
    }
    all[0] = own;
  } else if (bytes > 0) {
    transfers.push_back(Transfer::send(0, {own.data(), bytes, Dtype::u8}));
  }
  rank.ranks.exchange(transfers, rank.communication);
  const Awaiting waits("whole model");
  rank.communication.synchronize();
  return all;
}

}  // namespace

template <class T>
void gather_whole(RankState& rank, const FlatSpan<T>& local,
                  const std::function<void(const ParamInfo&, const Tensor&)>& take) {
  const std::vector<ParamRange> counted = rank.gradients->counted();
  const ModelConfig& model = rank.config.model;
  const Dtype dtype = dtype_of<std::remove_const_t<T>>;
  const auto size = static_cast<int64_t>(size_of(dtype));
  for (const ParamInfo& whole : parameters_of(model, whole_model(model))) {
    const Part part = part_of(rank, counted, whole.name, local);
    const int64_t own = static_cast<int64_t>(part.table.size());
    const auto lengths = gather_values<int64_t>(rank.ranks, rank.communication, std::span(&own, 1));
    const auto table = gather_values<int64_t>(rank.ranks, rank.communication, part.table);
    const auto bytes = collect(rank, part.bytes);
    if (rank.ranks.rank() != 0) continue;
    Tensor values(rank.device, whole.shape, dtype, MemoryKind::other);
    size_t at = 0;
    int64_t covered = 0;
    for (size_t r = 0; r < lengths.size(); ++r) {
      const std::byte* from = bytes[r].data();
      for (const size_t end = at + static_cast<size_t>(lengths[r]); at < end; at += 2) {
        const auto run = static_cast<size_t>(table[at + 1] * size);
        std::memcpy(values.raw() + table[at] * size, from, run);
        from += run;
        covered += table[at + 1];
      }
    }
    if (covered != whole.shape.elements()) {
      fail(cat(whole.name, " has ", whole.shape.elements(), " elements, but the ranks hold ",
               covered, " of them"));
    }
    take(whole, values);
  }
}

template void gather_whole(RankState&, const FlatSpan<float>&,
                           const std::function<void(const ParamInfo&, const Tensor&)>&);
template void gather_whole(RankState&, const FlatSpan<const float>&,
                           const std::function<void(const ParamInfo&, const Tensor&)>&);
template void gather_whole(RankState&, const FlatSpan<BFloat16>&,
                           const std::function<void(const ParamInfo&, const Tensor&)>&);

WholeModel::WholeModel(RankState& rank) : store_(rank.store.get()) {
  const Mesh& mesh = rank.part->mesh();
  const bool here = mesh.extent(MeshAxis::tp) * mesh.extent(MeshAxis::pp) *
                            mesh.extent(MeshAxis::ep) * mesh.extent(MeshAxis::etp) ==
                        1 &&
                    !rank.gradients->gathers_weights();
  const Chunk all = whole_model(rank.config.model);
  if (!here) {
    if (rank.ranks.rank() == 0) {
      own_ = std::make_unique<ParamStore>(rank.device, parameters_of(rank.config.model, all),
                                          rank.store->compute(),
                                          ParamMemory{.masters = false, .gradients = false});
      store_ = own_.get();
    }
    const auto put = [&](const ParamInfo& whole, const Tensor& values) {
      const Tensor to = own_->weight(own_->param(whole.name));
      std::memcpy(to.raw(), values.raw(), to.bytes());
    };
    const ParamShards& shards = rank.gradients->shards();
    if (rank.store->compute() == Dtype::bf16) {
      gather_whole(rank, shards.copies(), put);
    } else {
      gather_whole(rank, shards.master(), put);
    }
    gather_states(rank);
  }
  if (rank.ranks.rank() != 0) return;
  source_ = std::make_unique<StoreSource>(*store_);
  model_ = std::make_unique<Transformer>(rank.config.model, *store_, all);
  model_->set_rope(rank.mesh->rope());
}

// The routers' biases, which the ranks that have the block hold alike.
void WholeModel::gather_states(RankState& rank) {
  for (const auto& [name, shape] : states_of(rank.config.model, whole_model(rank.config.model))) {
    std::vector<float> values(static_cast<size_t>(shape.elements()), -INFINITY);
    for (const ModelState& s : rank.store->states()) {
      if (s.name != name) continue;
      std::copy(s.values.span<float>().begin(), s.values.span<float>().end(), values.begin());
    }
    rank.ranks.all_reduce(buffer_of(std::span(values)), Reduce::max, rank.communication);
    const Awaiting waits("state of the optimiser");
    rank.communication.synchronize();
    if (!own_) continue;
    const Tensor to = own_->state(name, shape);
    std::copy(values.begin(), values.end(), to.data<float>());
  }
}

std::unique_ptr<WholeModel> whole_model_on_first(RankState& rank) {
  auto whole = std::make_unique<WholeModel>(rank);
  if (rank.ranks.rank() != 0) whole.reset();
  return whole;
}

}  // namespace shoestring

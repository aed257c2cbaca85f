#include "launcher/memory_forecast.h"

#include <algorithm>

#include <unistd.h>

#include <fstream>
#include <map>

#include "core/check.h"
#include "core/counted.h"
#include "core/layers/context.h"
#include "core/model/transformer.h"
#include "core/text.h"
#include "launcher/block_memory.h"
#include "launcher/fp8_forecast.h"
#include "launcher/key_places.h"
#include "launcher/mesh_layout.h"
#include "launcher/op_workspaces.h"
#include "launcher/plan.h"
#include "launcher/progress.h"
#include "launcher/sharing_forecast.h"
#include "launcher/stage_memory.h"
#include "launcher/state_forecast.h"
#include "parallel/mesh.h"

namespace shoestring {
namespace {

// Figures of the routers, a few for each expert and sequence.
int64_t routing_bytes(const ModelConfig& m, int64_t sequences) {
  return m.moe.on() ? (m.layers + m.mtp.depth) * (sequences + 8) * m.moe.experts * 8 : 0;
}

double tokens_of(const LoadSegment& s) {  // of a micro-batch
  return static_cast<double>(s.sequences) * static_cast<double>(s.length);
}

// In f64: sizes that a config may name overflow 64 bits.
double elements_of(const ModelConfig& model, const Chunk& chunk) {
  double elements = 0;
  for (const ParamInfo& p : parameters_of(model, chunk)) {
    double product = 1;
    for (int64_t dim : p.shape.dims()) product *= static_cast<double>(dim);
    elements += product;
  }
  return elements;
}

// Of the whole model, of which only one block of each kind is listed: a list of all the names of a
// model that cannot fit might not fit either.
double elements_of(ModelConfig model) {
  const int64_t depth = model.mtp.depth;
  int64_t blocks[2] = {}, example[2] = {};  // dense, sparse
  for (int64_t i = 0; i < model.layers; ++i) {
    const int kind = model.moe.sparse(i) ? 1 : 0;
    ++blocks[kind];
    example[kind] = i;
  }
  const Chunk ends{.first_block = 0, .last_block = 0, .embedding = true, .head = true};
  model.mtp.depth = 0;
  const double none = elements_of(model, ends);
  model.mtp.depth = 1;
  const double one = elements_of(model, ends);
  double elements = none + static_cast<double>(depth) * (one - none);
  for (int kind = 0; kind < 2; ++kind) {
    if (blocks[kind] == 0) continue;
    const Chunk block{.first_block = example[kind],
                      .last_block = example[kind] + 1,
                      .embedding = false,
                      .head = false};
    elements += static_cast<double>(blocks[kind]) * elements_of(model, block);
  }
  return elements;
}

// Bytes of one rank's weights, gradients and optimiser state, at least.
double state_bytes(const RunConfig& config, int ranks) {
  // What the other ranks of a mesh hold is not here; the ranks with most hold at least this.
  const MeshConfig& mesh = config.mesh;
  const auto holders = static_cast<double>(mesh.tp * mesh.pp * mesh.ep * mesh.etp);
  const double elements = elements_of(config.model) / holders;
  const double copies = config.train.dtype == "f32" ? 0 : 2;
  const double moment = config.optim.moments.value_or("f32") == "f32" ? 4 : 2;
  const double moments = (config.optim.optimizer == "adamw" ? 2 : 1) * moment;
  const double average = config.optim.ema_decay > 0 ? 4 : 0;
  // What each stage of ZeRO shares out over data and context ranks, with both copies of a stage;
  // masters in f32 are the weights themselves.
  const int64_t stage = config.parallel.zero_stage;
  const bool copied = mesh.pp > 1 && config.pipeline.schedule == "dualpipe";
  const double sharers = static_cast<double>(ranks * mesh.cp * (copied ? 2 : 1));
  const auto shared = [&](int64_t from) { return stage >= from ? 1.0 / sharers : 1; };
  const double masters = copies > 0 ? 4 * shared(1) : 0, weights = copies > 0 ? copies : 4;
  return elements *
         (masters + weights * shared(3) + 4 * shared(2) + (moments + average) * shared(1));
}

// The loader makes a rank's whole part of a step, four i32 a token; one step ahead of the loop.
double batch_bytes(const LoadSegment& s, int ranks) {
  const int64_t micro_batches = (s.micro_batches + ranks - 1) / ranks;
  return 2 * 16 * static_cast<double>(micro_batches) * tokens_of(s);
}

// `state`: bytes of the weights and all that belongs to them.
double step_bytes(const RunConfig& config, const LoadSegment& s, const MachineShare& machine,
                  double state) {
  // One value a hidden unit and block is kept under every policy, and one block's others exist at
  // once. Where that or the weights alone are too much the forecast might overflow.
  const ModelConfig& m = config.model;
  const BlockSizes last = sizes_of_block(m, m.layers - 1, {});
  const auto cut = static_cast<double>(config.mesh.tp * config.mesh.cp);
  const double kept = static_cast<double>(m.hidden) * static_cast<double>(m.layers) /
                      static_cast<double>(config.mesh.pp);
  const double once = static_cast<double>(last.q) + static_cast<double>(last.product());
  const double least = tokens_of(s) / cut * 2 * (kept + once);
  if (std::max(least, state) > static_cast<double>(machine.memory_bytes)) return least;
  // The stages of a pipeline differ, and are not known before their pieces are measured.
  if (split_is_open(config)) return least;
  const int world = std::max(machine.world, machine.ranks);
  const Mesh mesh(mesh_of(config, world), world);
  int64_t most = 0;
  for (const int rank : mesh.members(MeshGroup::pp, 0)) {
    const ForecastInput input{
        .sequences = s.sequences,
        .length = s.length,
        .threads = machine.threads,
        .share = share_of(config, world, rank, most_micro_batches(s.micro_batches, machine.ranks))};
    most = std::max(most, forecast_memory(config, input).total());
  }
  return static_cast<double>(most);
}

// Reductions of gradients, which go on beside the backward pass: as many pieces of this rank's
// share of a bucket as others send, in exact mode a place for its own as well.
int64_t sharing_communication(const RunConfig& config, const RankShare& share) {
  int64_t bytes = 0;
  for (const RankShare::Group& group : share.groups) {
    if (group.ranks() == 1) continue;
    int64_t largest = 0;
    const FlatGroup flat = flat_group(config, share, group);
    for (const ShardLayout::Bucket& b : flat.layout.buckets()) {
      largest = std::max(largest, b.counts[static_cast<size_t>(group.shard)]);
    }
    if (config.train.exact) {
      const int64_t inside = group.shards > 1 ? group.shards : 0;
      const int64_t across = group.replicas > 1 ? group.ranks() : 0;
      bytes += 4 * largest * group.sources * (inside + across);
    } else {
      // Of the sum over replicas each has a part.
      const int64_t across = group.replicas > 1 ? largest : 0;
      bytes += 4 * std::max(largest * (group.shards - 1), across);
    }
  }
  return bytes;
}

// The program over what each stage takes: what lies there when an instruction runs, and its own
// moments on top.
class Walk {
 public:
  explicit Walk(const MemoryForecast& around) : around_(around), most_(around) {}

  // `shared_out`: beside the instruction.
  void run(Do what, const StageMemory& stage, int64_t shared_out) {
    around_.shared_out = shared_out;
    if (what == Do::F) {
      meet(stage.forward, 0);
      there_ += stage.kept;
    } else if (what == Do::W) {
      meet({{}}, around_.communication);
      there_ -= stage.owed;
    } else {
      there_ -= stage.kept;
      meet(what == Do::B ? stage.backward : stage.input, around_.communication);
      there_ += what == Do::I ? stage.owed : 0;
    }
  }
  const MemoryForecast& most() const { return most_; }

 private:
  void meet(const std::vector<PassMoment>& moments, int64_t communication) {
    for (const PassMoment& m : moments) {
      MemoryForecast now = around_;
      now.activations += there_ + m.activations;
      now.workspace = m.workspace;
      now.communication = communication;
      MemoryForecast::Peaks peaks = most_.peaks;
      peaks.activations = std::max(peaks.activations, there_ + m.activations);
      peaks.workspace = std::max(peaks.workspace, m.workspace);
      if (now.total() > most_.total()) most_ = now;
      most_.peaks = peaks;
    }
  }

  MemoryForecast around_, most_;
  int64_t there_ = 0;
};

// i32 tables of the micro-batches under way: four a token, documents' beginnings and, of each
// prediction module, what it reads and predicts.
int64_t batch_tables(const RunConfig& config, const ForecastInput& in) {
  const RankShare& share = in.share;
  const int64_t tokens = in.sequences * in.length / share.context;
  // With heads in the place of tokens, documents' beginnings of whole rows too.
  const bool heads = share.context > 1 && share.context_kind == ContextKind::all_to_all;
  const int64_t whole = heads ? in.sequences * in.length : 0;
  return share.where.micros * 4 * (tokens * (5 + 5 * config.model.mtp.depth) + whole);
}

RankShare alone(const RunConfig& config) {
  RankShare share;
  share.program = {{.what = Do::F}, {.what = Do::B}};
  share.chunks = {whole_model(config.model)};
  share.groups = {{.params = parameters_of(config.model, whole_model(config.model))}};
  return share;
}

}  // namespace

MemoryForecast forecast_memory(const RunConfig& config, const ForecastInput& input) {
  ForecastInput in = input;
  if (in.share.program.empty()) in.share = alone(config);
  const OpWorkspaces workspaces = forecast_workspaces(config, in);
  MemoryForecast around{
      .activations = batch_tables(config, in) + routing_bytes(config.model, in.sequences),
      .communication = sharing_communication(config, in.share),
      .checkpoint = in.checkpoint_bytes};
  if (config.precision.on()) {
    const int64_t experts = config.model.moe.experts / in.share.experts;
    for (const RankShare::Group& group : in.share.groups) {
      around.weight_codes += forecast_codes(config, group.params, experts, in.fallen);
    }
  }
  std::map<int, StageMemory> stages;
  Walk walk(around);
  SharingForecast sharing(config, in.share);
  for (const Instruction& i : in.share.program) {
    const SharingForecast::Bytes whole = sharing.at(i);
    if (!is_compute(i.what)) continue;
    if (!stages.contains(i.stage)) {
      const Chunk& chunk = in.share.chunks.at(static_cast<size_t>(i.stage));
      stages[i.stage] = stage_memory(config, in, chunk, workspaces);
    }
    walk.run(i.what, stages.at(i.stage), whole.gradients + whole.weights);
  }
  MemoryForecast most = walk.most();
  const int64_t rows = row_communication(config, in);
  most.peaks.communication = around.communication + rows;
  // One micro-batch comes before the one before it has gone.
  most.peaks.data = batch_tables(config, in) * (in.share.slots > 1 ? 2 : 1);
  most.communication += rows;
  return most;
}

void require_memory(const RunConfig& config, const std::vector<LoadSegment>& segments,
                    const MachineShare& machine) {
  const double state = state_bytes(config, machine.ranks);
  const auto available = static_cast<double>(machine.memory_bytes);
  for (const LoadSegment& s : segments) {
    const double batches = batch_bytes(s, machine.ranks);
    const double step = step_bytes(config, s, machine, state);
    const double needed = machine.ranks_here * (state + batches + step);
    if (needed <= available) continue;
    const int64_t stage = config.parallel.zero_stage;
    const std::string sharing = cat("a smaller model or parallel.zero_stage = ", stage + 1);
    const bool sharable = machine.ranks * config.mesh.cp > 1 && stage < 3;
    std::string_view remedy = sharable ? std::string_view(sharing) : "a smaller model";
    std::vector<std::string> keys = {"model.layers",     "model.hidden",      "model.ffn",
                                     "model.vocabulary", "model.moe.experts", "model.moe.ffn"};
    if (batches > std::max(state, step)) {
      remedy = "a smaller train.batch";
      keys = {"train.batch", "train.sequence_length"};
    }
    if (step >= std::max(state, batches)) {
      keys = {"train.micro_batch", "train.sequence_length"};
      remedy =
          "a smaller train.micro_batch, shorter train.sequence_length or train.recompute = "
          "\"block\"";
    }
    const std::string start =
        s.from_tokens > 0 ? cat("from ", counted(s.from_tokens, "token"), " on ") : "";
    const std::string who =
        machine.ranks_here > 1 ? cat("Each of the ", machine.ranks_here, " ranks here") : "It";
    const std::string text =
        cat(start, "this run needs at least ", text_of_bytes(needed), " here, but the machine has ",
            text_of_bytes(available), ". ", who, " needs ", text_of_bytes(state),
            " for weights, gradients and moments, ", text_of_bytes(batches), " for batches of ",
            s.micro_batches, " x ", counted(s.sequences, "sequence"), " of ",
            counted(s.length, "token"), ", ", text_of_bytes(step), " for one micro-batch; ", remedy,
            " needs less");
    fail_usage(with_places(text, config.set_at, keys_from(config, s.from_tokens, keys)));
  }
}

int64_t memory_of_machine() {
  int64_t bytes = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGE_SIZE);
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t limit = 0;
    if (std::ifstream(path) >> limit && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

}  // namespace shoestring

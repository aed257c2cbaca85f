#pragma once
// A small run of eight ranks in whose second step one rank fails at a chosen place: what the tests
// of failures on threads and over MPI share.

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "core/text.h"
#include "launcher/config.h"
#include "launcher/core_share.h"
#include "launcher/run_trace.h"
#include "launcher/trainer.h"
#include "parallel/comm/decorator.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {

inline constexpr int failure_ranks = 8;

// 2 x 2 x 2 ranks.
enum class FailureMesh : uint8_t {
  dense,   // tensor, pipeline, data
  sparse,  // context (ring), pipeline whose passes overlap, data; experts on two ranks
  nodes,   // the same on nodes of two ranks, experts on four: their rows travel on two levels
};

// Compute: in an op of the pass. The others: at a call of the group that the place is named after.
struct FailurePlace {
  const char* name;
  std::optional<Phase> compute;
  const char* group;       // how the communicator's name begins
  const char* phase;       // part of the rank's place (comm/whereabouts.h)
  const char* told;        // what the line says of the place
  const char* waits = "";  // and of the call that others wait in
  const char* op = "";     // which it is
  int before = 0;          // calls of the group in this step that go well
  FailureMesh mesh = FailureMesh::dense;
};

// Of the sparse meshes: a pass in parts, or another one that computes while this one's rows travel.
inline constexpr const char* a_pass = "[01]\\w+(\\.\\d+~?)? \\(";

// The calls of a sparse layer: counts, rows to the experts, rows home. Of eight micro-batches of a
// data rank, two layers of a stage: four forward passes of stage 0 run before one has a partner.
inline constexpr int calls_before_pairs = 4 * 2 * 3;
inline FailurePlace expert_place(const char* name, const char* quoted_group, int before,
                                 FailureMesh mesh) {
  return {name, {}, quoted_group + 1, "(", a_pass, quoted_group, "all_to_all", before, mesh};
}
inline const std::vector<FailurePlace>& failure_places() {
  static const std::vector<FailurePlace> places{
      {"forward", Phase::forward, "", "step 2, ",
       "[01]F\\d+ \\(forward of stage [01], micro-batch \\d of the step\\), "
       "(layers\\.\\d\\.\\w+|embedding|head|norm)"},
      {"input", Phase::input, "", "step 2, ",
       "[01]I\\d+ \\(input gradient of stage [01], micro-batch \\d of the step\\)"},
      {"weight", Phase::weight, "", "step 2, ",
       "[01]W\\d+ \\(weight gradient of stage [01], micro-batch \\d of the step\\), "
       "(layers\\.\\d\\.\\w+|embedding|head|norm)"},
      {"tensor", {}, "tp/", "(", "[01][FIW]\\d+ \\(", "'tp/"},
      {"transfer", {}, "", "SA|SG", "[01]\\w+\\d+ \\(", "'(activations|gradients) [01] to [01]/"},
      {"reduction", {}, "dp", "(|sums", "([01]\\w+\\d+ \\(|sums of gradients)", "'dp"},
      {"gather", {}, "dp", "gathering of the weights", "gathering of the weights", "'dp"},
      {"evaluation", {}, "", "evaluation", "evaluation"},
      {"checkpoint", {}, "", "checkpoint", "checkpoint", "'world'"},
      expert_place("dispatch", "'ep/", calls_before_pairs + 1, FailureMesh::sparse),
      expert_place("combine", "'ep/", calls_before_pairs + 2, FailureMesh::sparse),
      expert_place("dispatch_backward", "'backward experts/", 0, FailureMesh::sparse),
      {"ring", {}, "cp ring/", "(", a_pass, "'cp ring/", "exchange", 1, FailureMesh::sparse},
      expert_place("across_nodes", "'ep across nodes/", 1, FailureMesh::nodes),
      expert_place("inside_nodes", "'ep inside nodes/", 1, FailureMesh::nodes),
  };
  return places;
}
inline const FailurePlace* failure_place(const std::string& name) {
  for (const FailurePlace& place : failure_places()) {
    if (place.name == name) return &place;
  }
  return nullptr;
}

// One rank's, at most once.
class PlantedFailure {
 public:
  // `in_stream`: where work of a call's stream would be; else where the rank makes the call.
  PlantedFailure(const FailurePlace& place, bool in_stream, std::function<void()> happen)
      : place_(place), in_stream_(in_stream), happen_(std::move(happen)) {}

  void at_op(Phase phase) {
    if (place_.compute != phase || !in_second_step()) return;
    if (++ops_ == 3) happen_();
  }
  // What is to happen in the stream of a call, if anything.
  bool meets(const std::string& group) {
    if (place_.compute || done_ || !in_second_step()) return false;
    const bool link = group.starts_with("activations") || group.starts_with("gradients");
    if (std::string(place_.name) == "transfer" ? !link : !group.starts_with(place_.group)) {
      return false;
    }
    std::string phases = place_.phase;
    for (size_t bar = 0; bar != std::string::npos;) {
      bar = phases.find('|');
      if (where().find(phases.substr(0, bar)) != std::string::npos) {
        return done_ = calls_++ == place_.before;
      }
      if (bar != std::string::npos) phases.erase(0, bar + 1);
    }
    return false;
  }
  void happen() const { happen_(); }
  bool in_stream() const { return in_stream_; }

 private:
  static std::string where() { return whereabouts() == nullptr ? "" : whereabouts()->place(); }
  static bool in_second_step() { return where().starts_with("step 2, "); }

  FailurePlace place_;
  bool in_stream_;
  std::function<void()> happen_;
  bool done_ = false;
  int ops_ = 0, calls_ = 0;
};

class FailingCommunicator : public Decorator {
 public:
  template <class Inner>
  FailingCommunicator(Inner&& inner, PlantedFailure* failure)
      : Decorator(std::forward<Inner>(inner)), failure_(failure) {}

 protected:
  void before(const Call&, Stream& stream) override {
    if (failure_ == nullptr || !failure_->meets(name())) return;
    if (!failure_->in_stream()) return failure_->happen();
    stream.run([failure = failure_] { failure->happen(); });
  }
  void after(const Call&, Stream&) override {}
  std::unique_ptr<Communicator> wrap(std::unique_ptr<Communicator> child) override {
    return std::make_unique<FailingCommunicator>(std::move(child), failure_);
  }

 private:
  PlantedFailure* failure_;
};

class FailingTrace : public RunTrace {
 public:
  FailingTrace(int rank, PlantedFailure* failure) : RunTrace({2, 2}, rank), failure_(failure) {}
  void begin(std::string_view op, Phase phase) override {
    RunTrace::begin(op, phase);
    if (failure_ != nullptr) failure_->at_op(phase);
  }

 private:
  PlantedFailure* failure_;
};

// `failure`: of this rank, or null.
inline void train_to_failure(const RunConfig& config, Communicator& world, Communicator& here,
                             PlantedFailure* failure) {
  const CoreShare share = share_cores(here, config.threads);
  FailingTrace trace(world.rank(), failure);
  FailingCommunicator ranks(world, failure);
  RankState rank(config, ranks, share.threads, here.size());
  Trainer trainer(rank, trace, share);
  const AbortOnUnwind guard(world);
  trainer.run();
}

// A run in `directory` on the data of `tests`, this source's tests/ folder.
inline RunConfig failing_config(const std::string& tests, const std::string& directory,
                                FailureMesh mesh) {
  RunConfig c;
  c.threads = 2;
  c.run.directory = directory;
  c.model.layers = 4, c.model.hidden = 32, c.model.ffn = 64;
  c.model.heads = 4, c.model.kv_heads = 2;
  c.model.max_positions = 64;
  c.train.steps = 3, c.train.batch = 8, c.train.micro_batch = 1;
  c.train.sequence_length = 32;
  c.train.evaluate_every = 1, c.train.evaluate_sequences = 4;
  c.train.log_every = 0;
  c.train.measure_peak = false;
  c.optim.schedule.total = 4000;
  c.mesh.tp = 2, c.mesh.pp = 2;
  c.parallel.data_parallel = 2, c.parallel.zero_stage = 1;
  c.pipeline.schedule = "zb-h1";
  if (mesh != FailureMesh::dense) {
    c.train.batch = 16;
    c.model.moe = {.experts = 4, .chosen = 2, .ffn = 16};
    c.mesh.tp = 1, c.mesh.cp = 2, c.mesh.ep = mesh == FailureMesh::nodes ? 4 : 2;
    c.mesh.ranks_per_node = mesh == FailureMesh::nodes ? 2 : 0;
    c.pipeline.schedule = "1f1b", c.pipeline.overlap = true;
  }
  c.checkpoint.every = 1;
  c.data.held_out = 0.5;
  const std::string data = tests + "/data/tiny/";
  c.tokenizer = data + "tokenizer.json";
  c.data.sources = {
      {.name = "persuasion", .path = data + "persuasion.h5", .weight = 1, .held_out = {}}};
  return c;
}

// What the line of a failure lacks; empty: nothing. `said`: the words in front. `waits`: whether
// all others had the time to come to wait.
inline std::string missing_in(const std::string& line, const FailurePlace& place, int rank,
                              const std::string& said, bool waits) {
  if (line.find(said) == std::string::npos) return cat("'", said, "'");
  const std::string was =
      cat("rank ", rank, " on [^ ]+ was in step 2, ", place.told, ".*; meanwhile ranks? ");
  if (!std::regex_search(line, std::regex(was))) return was;
  if (!waits) return "";
  const std::string wait = cat("ranks?[^;]*: waiting for ranks? ([^;]* )?", rank,
                               "[, ][^;]*in [^;]*", place.op, " #\\d+ of [^;]*", place.waits);
  return std::regex_search(line, std::regex(wait)) ? "" : wait;
}

}  // namespace shoestring

#pragma once
// A small run on a mesh of 2 x 2 x 2 (tensor, pipeline, data) in whose second step one rank fails
// at a chosen place: what the tests of failures on threads and over MPI share.

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

// Compute: in an op of the pass. The others: at a call of the group that the place is named after.
struct FailurePlace {
  const char* name;
  std::optional<Phase> compute;
  const char* group;       // how the communicator's name begins
  const char* phase;       // part of the rank's place (comm/whereabouts.h)
  const char* told;        // what the line says of the place
  const char* waits = "";  // and of the call that others wait in
};
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
      if (where().find(phases.substr(0, bar)) != std::string::npos) return done_ = true;
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
  int ops_ = 0;
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
inline RunConfig failing_config(const std::string& tests, const std::string& directory) {
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
                               "[, ][^;]*in [^;]*", "#\\d+ of [^;]*", place.waits);
  return std::regex_search(line, std::regex(wait)) ? "" : wait;
}

}  // namespace shoestring

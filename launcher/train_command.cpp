#include "launcher/train_command.h"

#include <atomic>
#include <charconv>

#include "core/log.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/signals.h"
#include "parallel/comm/checked.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/mpi.h"
#include "parallel/comm/rank_environment.h"

namespace shoestring {
namespace {

// Cores of one rank when `ranks` of them share this machine.
int threads_of_rank(const RunConfig& config, int ranks) {
  const int64_t all = config.threads > 0 ? config.threads : hardware_threads();
  return static_cast<int>(std::max<int64_t>(1, all / ranks));
}

bool run_rank(const RunConfig& config, const TraceRange& range, Communicator& world,
              int ranks_here) {
  if (world.size() > 1) set_log_rank(world.rank());
  std::unique_ptr<Communicator> comparing;
  if (config.parallel.checked) comparing = shoestring::checked(world);
  RunTrace trace(range, world.rank());
  RankState rank(config, trace.wrap(comparing ? *comparing : world),
                 threads_of_rank(config, ranks_here), ranks_here);
  Trainer trainer(rank, trace);
  const AbortOnUnwind abort_on_unwind(world);
  return trainer.run();
}

}  // namespace

TraceRange parse_trace_range(const std::string& text) {
  TraceRange range;
  const char* end = text.data() + text.size();
  auto [colon, first_error] = std::from_chars(text.data(), end, range.first);
  if (first_error == std::errc() && colon != end && *colon == ':') {
    auto [rest, last_error] = std::from_chars(colon + 1, end, range.last);
    if (last_error == std::errc() && rest == end && range.first >= 1 && range.last >= range.first) {
      return range;
    }
  }
  fail_usage(cat("--trace-steps must be FIRST:LAST, steps counted from 1, but is '", text, "'"));
}

ExitCode train(const RunConfig& config, const TraceRange& trace) {
  std::atomic<bool> finished{true};
  if (const auto place = rank_place()) {
    const int64_t wanted = config.parallel.data_parallel;
    if (wanted != 1 && wanted != place->size) {
      fail_usage(cat("parallel.data_parallel = ", wanted, " but ", place->size,
                     " processes were started; set it to their number"));
    }
    run_mpi([&](Communicator& world) {
      std::unique_ptr<Communicator> here =
          world.split(place->rank - place->local_rank, world.rank());
      if (!run_rank(config, trace, world, here->size())) finished = false;
    });
  } else {
    const auto ranks = static_cast<int>(config.parallel.data_parallel);
    run_ranks(ranks, [&](Communicator& world) {
      if (!run_rank(config, trace, world, ranks)) finished = false;
    });
  }
  return finished ? ExitCode::done : ExitCode::preempted;
}

ExitCode run_train(const TrainOptions& options) {
  const auto config = read_config<RunConfig>({options.config, options.overrides});
  catch_stop_signals();
  return train(config, options.trace);
}

}  // namespace shoestring

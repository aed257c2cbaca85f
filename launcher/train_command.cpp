#include "launcher/train_command.h"

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>

#include "core/log.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/config_warnings.h"
#include "launcher/core_share.h"
#include "launcher/mesh_layout.h"
#include "launcher/run_directory.h"
#include "launcher/signals.h"
#include "launcher/stop_deadline.h"
#include "parallel/comm/checked.h"
#include "parallel/comm/mpi.h"
#include "parallel/comm/rank_environment.h"
#include "parallel/comm/run_ranks.h"

namespace shoestring {
namespace {

// `here`: the ranks of this machine.
bool run_rank(const RunConfig& config, const TraceRange& range, Communicator& world,
              Communicator& here, StopDeadline& deadline) {
  if (world.size() > 1) set_log_rank(world.rank());
  std::unique_ptr<Communicator> comparing;
  if (config.parallel.checked) comparing = shoestring::checked(world);
  const CoreShare share = share_cores(here, config.threads);
  RunTrace trace(range, world.rank());
  RankState rank(config, trace.wrap(comparing ? *comparing : world), share.threads, here.size());
  Trainer trainer(rank, trace, share);
  const AbortOnUnwind abort_on_unwind(world);
  return trainer.run([&] { deadline.begun(); });
}

// Threads that compute or hang while another rank has failed cannot be ended but so.
void end_process(const RankError& error) {
  log_error(error.what());
  std::_Exit(static_cast<int>(error.code()));
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
  if (trace.last > config.train.steps) {
    fail_usage(cat("--trace-steps ", trace.first, ":", trace.last, " goes beyond train.steps = ",
                   config.train.steps, "; name steps from 1 to ", config.train.steps));
  }
  RunDirectory(config.run.directory).require_no_model();
  std::atomic<bool> finished{true};
  const auto place = rank_place();
  StopDeadline stop_deadline(config.run.signal_deadline, config.run.directory, place ? 3 : 0);
  const auto deadline =
      std::chrono::milliseconds(static_cast<int64_t>(config.parallel.deadline * 1000));
  if (place) {
    mesh_of(config, place->size);  // refuses another number of processes
    run_mpi(
        [&](Communicator& world) {
          if (world.size() != place->size) {
            fail_usage(cat("the environment tells of ", place->size, " processes, but MPI joined ",
                           world.size(), "; with srun add --mpi=pmix (srun --mpi=list shows what ",
                           "there is), or start with mpirun"));
          }
          const auto here = world.split(mpi_machine(), world.rank());
          if (!run_rank(config, trace, world, *here, stop_deadline)) finished = false;
        },
        {.deadline = deadline});
  } else {
    const auto ranks = static_cast<int>(ranks_of(config));
    // One mistake in the config is one message, not one of each of thousands of ranks.
    if (ranks > 1) check_inputs(config, ranks);
    run_ranks(ranks,
              [&](Communicator& world) {
                if (!run_rank(config, trace, world, world, stop_deadline)) finished = false;
              },
              {.deadline = deadline, .name = "world"}, {.over = end_process});
  }
  return finished ? ExitCode::done : ExitCode::preempted;
}

ExitCode run_train(const TrainOptions& options) {
  const auto config =
      read_config<RunConfig>({options.config, options.overrides},
                             [](const RunConfig& run, Complaints& c) { run.validate_data(c); });
  const auto place = rank_place();
  if (!place || place->rank == 0) {
    const int64_t ranks = mesh_of(config, place ? place->size : ranks_of(config)).dp();
    for (const std::string& text : config_warnings(config, ranks, config.set_at)) log_warning(text);
  }
  catch_stop_signals();
  return train(config, options.trace);
}

}  // namespace shoestring

#pragma once
// `shoestring train CONFIG`: starts the ranks, each with its share of the cores, and runs a Trainer
// on every one.

#include <string>
#include <vector>

#include "core/check.h"
#include "launcher/trainer.h"

namespace shoestring {

struct TrainOptions {
  std::string config;
  std::vector<std::string> overrides;
  TraceRange trace;
};

// "3:5" -> steps 3 to 5; a usage error otherwise.
TraceRange parse_trace_range(const std::string& text);

// Runs the config's ranks: as threads, or as this process's part of what mpirun or srun started.
// Done, or preempted after a signal; errors are thrown.
ExitCode train(const RunConfig& config, const TraceRange& trace);

// Reads the config, catches stop signals and trains.
ExitCode run_train(const TrainOptions& options);

}  // namespace shoestring

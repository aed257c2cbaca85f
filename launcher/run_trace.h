#pragma once
// The trace of some steps of a run: the ops, waits, batches and collectives of every rank, in one
// file for Chrome's tracing page or Perfetto.

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/tape.h"
#include "io/trace.h"
#include "launcher/step_events.h"
#include "parallel/comm/whereabouts.h"
#include "parallel/communicator.h"
#include "parallel/pipeline_engine.h"

namespace shoestring {

// Steps counted from 1.
struct TraceRange {
  int64_t first = 0, last = -1;
  bool empty() const { return last < first; }
};

// One a rank, on the rank's thread. Lanes and names: step_events.h, and "data" and "data thread".
class RunTrace : public OpObserver {
 public:
  RunTrace(const TraceRange& range, int rank);
  ~RunTrace() override;
  RunTrace(const RunTrace&) = delete;
  RunTrace& operator=(const RunTrace&) = delete;

  // The communicator to use: one that reports its calls here, or `inner` itself when no step is to
  // be traced. This outlives its use.
  Communicator& wrap(Communicator& inner);

  // Before each step and after the last; all ranks call it with the same step. Returns true when a
  // file was written (the steps of the range are done).
  bool at_step(int64_t step, Communicator& ranks, const std::string& path);

  // Null outside of the range.
  TraceWriter* writer() const { return writer_.get(); }
  const TraceRange& range() const { return range_; }
  int rank() const { return rank_; }

  // An instruction of the schedule that ran.
  void ran(const InstructionSpan& span);

  void begin(std::string_view op, Phase phase) override;
  void end() override;

 private:
  struct Open {
    std::string name;
    double begin;
  };
  TraceRange range_;
  int rank_;
  std::mutex mutex_;  // streams and passes in parts have threads of their own
  std::shared_ptr<TraceWriter> writer_;
  std::map<std::thread::id, std::vector<Open>> open_;  // a pass in parts has a thread of its own
  std::optional<StepEvents> events_;                   // into writer_
  WaitListener waits_;
  std::unique_ptr<Communicator> reporting_;
};

// Every rank's text, in rank order, on every rank.
std::vector<std::string> gather_texts(Communicator& ranks, const std::string& own);

}  // namespace shoestring

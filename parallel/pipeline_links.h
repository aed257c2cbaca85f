#pragma once
// The ways that activations and gradients take between the ranks of a pipeline: for each channel of
// the schedule (parallel/effects.h) a communicator of its own two ranks and a stream of its own, so
// that no transfer waits for one of another direction or kind.

#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "core/tensor.h"
#include "parallel/communicator.h"
#include "parallel/effects.h"

namespace shoestring {

// "activations 0 to 1": of its communicator.
std::string name_of(const Channel& channel);

class PipelineLinks {
 public:
  // `pipeline`: rank r runs schedule.ranks[r]. All its ranks call at once; blocks. The schedule
  // has transfers and can run.
  PipelineLinks(Communicator& pipeline, Device& device, const Schedule& schedule);
  ~PipelineLinks();  // when an exception is under way, peers are told
  PipelineLinks(const PipelineLinks&) = delete;
  PipelineLinks& operator=(const PipelineLinks&) = delete;

  // After what `made` waits for. The memory is held until the value has left.
  void send(const Channel& channel, const Tensor& value, const Event& made);
  // The value is in `into` when the event has happened.
  Event receive(const Channel& channel, const Tensor& into);
  // Waits until everything was sent and received.
  void finish();
  void abort(std::string_view reason) noexcept;

 private:
  struct Link {
    Channel channel;
    std::unique_ptr<Communicator> pair;  // 0: the sender
    Stream stream;
  };
  Link& link(const Channel& channel);
  std::deque<Link> links_;
  int exceptions_ = std::uncaught_exceptions();
};

}  // namespace shoestring

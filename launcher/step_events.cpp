#include "launcher/step_events.h"

#include <utility>

#include "core/text.h"

namespace shoestring {

std::vector<std::string> step_lanes() {
  return {"steps", "compute", "waits", "rows", "transfers", "ops"};
}

std::string communication_lane(std::string_view communicator) {
  return cat("communication ", communicator.substr(0, communicator.find('/')));
}

void StepEvents::add(const Instruction& instruction, double begin, double end) {
  if (name_.empty()) begin_ = begin;
  name_ += instruction_text(instruction);
  if (instruction.with_next) {
    name_ += "&";
    return;
  }
  const char* lane = instruction.travels            ? "rows"
                     : is_compute(instruction.what) ? "compute"
                                                    : "transfers";
  writer_.event(rank_, lane, std::exchange(name_, ""), begin_, end);
}

}  // namespace shoestring

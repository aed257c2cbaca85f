#include "parallel/activation_offload.h"

#include <algorithm>

#include "core/check.h"
#include "core/transfer.h"

namespace shoestring {
namespace {

constexpr size_t copies_in_flight = 2;  // ends of segments; what they copy is still on the device

Tensor bytes_of(const BlockPtr& block) {
  return Tensor(block, 0, {static_cast<int64_t>(block->bytes())}, Dtype::u8);
}

}  // namespace

ActivationOffload::~ActivationOffload() {
  try {  // copies under way use memory that the tape is about to let go
    for (const Event& event : in_flight_) event.wait();
    for (const Moved& moved : moved_) moved.back.wait();
  } catch (const std::exception&) {
    // The next use of the stream tells.
  }
}

void ActivationOffload::offload() {
  check(tape_ != nullptr, "activations of no tape");
  for (Tape::Resting& resting : tape_->resting_blocks()) {
    BlockPtr& block = resting.block;
    Tensor copy(host_, {static_cast<int64_t>(block->bytes())}, Dtype::u8, block->kind());
    transfer(copies_, copy, bytes_of(block));
    copies_.run([block] { block->drop(); });
    bytes_ += static_cast<int64_t>(block->bytes());
    moved_.push_back({std::move(block), resting.segment, std::move(copy), {}});
  }
  in_flight_.push_back(copies_.record());
  for (; in_flight_.size() > copies_in_flight; in_flight_.pop_front()) in_flight_.front().wait();
}

// Starts the way back.
void ActivationOffload::fetch(int segment) {
  for (Moved& moved : moved_) {
    if (moved.segment != segment || !moved.copy) continue;
    const BlockPtr block = moved.block;
    const Tensor fresh(block->device(), {static_cast<int64_t>(block->bytes())}, Dtype::u8,
                       MemoryKind::activations);
    transfer(copies_, fresh, moved.copy);
    copies_.run([block, fresh, copy = std::move(moved.copy)] { block->adopt(*fresh.block()); });
    moved.copy = {};
    moved.back = copies_.record();
  }
}

void ActivationOffload::expect_backward() { fetch(tape_->num_segments() - 1); }

void ActivationOffload::acquire(int segment, Phase phase) {
  backward_ |= phase == Phase::input;
  if (backward_) {
    fetch(segment);
    for (const Moved& moved : moved_) {
      if (moved.segment == segment) moved.back.wait();
    }
    // The tape lets go of them, block by block: not before we do.
    std::erase_if(moved_, [&](const Moved& moved) { return moved.segment == segment; });
    fetch(segment - 1);
  }
  inner_.acquire(segment, phase);
}

void ActivationOffload::release(int segment, Phase phase) {
  inner_.release(segment, phase);
  if (phase == Phase::forward && !backward_) offload();
}

}  // namespace shoestring

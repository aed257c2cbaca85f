#include "parallel/pipeline_engine.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

void StageWork::forward_parts(int, int, const Tensor&, PartGate&) {
  fail("this work does not run in parts");
}
void StageWork::backward_parts(int, int, const Tensor&, PartGate&) {
  fail("this work does not run in parts");
}

std::string awaited_by(const Instruction& instruction) {
  const bool forward = instruction.what == Do::F || instruction.what == Do::SA;
  return cat(forward ? "input of " : "gradient of ", instruction_text(instruction));
}

PipelineEngine::PipelineEngine(Communicator& pipeline, Stream& compute, const Schedule& schedule)
    : pipeline_(pipeline),
      compute_(compute),
      schedule_(schedule),
      program_(schedule.ranks.at(static_cast<size_t>(pipeline.rank()))),
      slots_(slot_kinds * static_cast<size_t>(schedule.where.chunks) *
             static_cast<size_t>(schedule.where.micros)),
      links_(pipeline, compute.device(), schedule) {
  check(pipeline.size() == schedule.where.ranks, "a schedule for another number of ranks");
  const auto of_part = [](const Instruction& i) { return !i.whole(); };
  if (std::any_of(program_.begin(), program_.end(), of_part)) {
    lanes_ = std::make_unique<Lanes>(compute.device());
  }
}

PipelineEngine::Slot& PipelineEngine::slot(SlotKind kind, int stage, int micro) {
  const Placement& where = schedule_.where;
  const int chunk = where.chunk_of(pipeline_.rank(), stage);
  const size_t row =
      static_cast<size_t>(kind) * static_cast<size_t>(where.chunks) + static_cast<size_t>(chunk);
  return slots_[row * static_cast<size_t>(where.micros) + static_cast<size_t>(micro)];
}

void PipelineEngine::put(SlotKind kind, const Instruction& i, int stage, Tensor value,
                         const Event& ready) {
  Slot& to = slot(kind, stage, i.micro);
  check(!to.there, "a value of the pipeline is made twice");
  to = {.value = std::move(value), .ready = ready, .there = true};
}

Tensor PipelineEngine::take(SlotKind kind, const Instruction& i) {
  Slot& from = slot(kind, i.stage, i.micro);
  if (!from.there) settle(kind == SlotKind::activation || kind == SlotKind::activation_out);
  check(from.there, "a value of the pipeline is read before it is made");
  if (!from.ready.happened()) {
    const auto begin = Clock::now();
    {
      const std::string what = awaited_by(i);
      const Awaiting waits(what);
      compute_.wait(from.ready);
    }
    began_ = Clock::now();
    stats_.wait_seconds += std::chrono::duration<double>(began_ - begin).count();
  } else {
    compute_.wait(from.ready);  // its error, if it has one
  }
  return std::exchange(from, {}).value;
}

template <class F>
auto PipelineEngine::timed(F&& work) {
  const auto begin = Clock::now();
  auto result = work();
  stats_.compute_seconds += seconds_since(begin);
  return result;
}

// To the next stage (`up`) or the one before: here, or behind a transfer.
void PipelineEngine::hand_on(const Instruction& i, Tensor value, bool up) {
  const Placement& where = schedule_.where;
  const int stage = i.stage + (up ? 1 : -1);
  if (stage < 0 || stage == where.stages()) return;
  const SlotKind here = up ? SlotKind::activation : SlotKind::gradient;
  const SlotKind out = up ? SlotKind::activation_out : SlotKind::gradient_out;
  const bool stays = where.rank_of(stage, i.micro) == pipeline_.rank();
  put(stays ? here : out, i, stays ? stage : i.stage, std::move(value));
}

// The rest of a pass in parts, behind its last one.
void PipelineEngine::settle(bool forward) {
  if (lanes_ == nullptr) return;
  Lane& lane = forward ? lanes_->forward : lanes_->backward;
  if (!lane.busy()) return;
  const double before = lane.travel_seconds();
  const auto begin = Clock::now();
  lane.finish();
  const double travelled = lane.travel_seconds() - before;
  stats_.travel_seconds += travelled;
  stats_.compute_seconds += seconds_since(begin) - travelled;
  if (travelled > 0) began_ = begin + duration_of(travelled);
  collect(forward);
}

void PipelineEngine::collect(bool forward) {
  Lane& lane = forward ? lanes_->forward : lanes_->backward;
  std::optional<Tensor> result = lane.take();
  if (!result) return;
  hand_on(forward ? lanes_->forward_pass : lanes_->backward_pass, std::move(*result), forward);
}

void PipelineEngine::start_pass(const Instruction& i, StageWork& work) {
  const bool forward = i.what == Do::F;
  const bool edge = i.stage == (forward ? 0 : schedule_.where.stages() - 1);
  Tensor x = edge ? Tensor() : take(forward ? SlotKind::activation : SlotKind::gradient, i);
  (forward ? lanes_->forward_pass : lanes_->backward_pass) = i;
  Lane& lane = forward ? lanes_->forward : lanes_->backward;
  lane.start([&work, i, forward, x = std::move(x)](PartGate& gate) mutable {
    const Tensor input = std::move(x);  // goes with the pass
    forward ? work.forward_parts(i.stage, i.micro, input, gate)
            : work.backward_parts(i.stage, i.micro, input, gate);
  });
}

void PipelineEngine::step_part(const Instruction& i, StageWork& work) {
  const bool forward = i.what == Do::F;
  const int first = forward ? 0 : schedule_.parts_of(i.stage) - 1;
  if (i.part == first && i.what != Do::W) {
    settle(forward);
    start_pass(i, work);
  }
  Lane& lane = forward ? lanes_->forward : lanes_->backward;
  const double before = lane.travel_seconds();
  const auto begin = Clock::now();
  lane.go(i);
  const double travelled = lane.travel_seconds() - before;
  stats_.travel_seconds += travelled;
  stats_.compute_seconds += seconds_since(begin) - travelled;
  if (travelled > 0) began_ = begin + duration_of(travelled);
  collect(forward);
}

void PipelineEngine::step(const Instruction& i, StageWork& work) {
  if (!i.whole()) return step_part(i, work);
  if (is_compute(i.what)) settle(true), settle(false);
  const bool first = i.stage == 0, last = i.stage + 1 == schedule_.where.stages();
  switch (i.what) {
    case Do::F: {
      const Tensor x = first ? Tensor() : take(SlotKind::activation, i);
      hand_on(i, timed([&] { return work.forward(i.stage, i.micro, x); }), true);
      return;
    }
    case Do::B:
    case Do::I: {
      const Tensor dy = last ? Tensor() : take(SlotKind::gradient, i);
      hand_on(i, timed([&] {
                return i.what == Do::B ? work.backward(i.stage, i.micro, dy)
                                       : work.backward_input(i.stage, i.micro, dy);
              }),
              false);
      return;
    }
    case Do::W:
      timed([&] { return work.backward_weight(i.stage, i.micro), 0; });
      return;
    case Do::SA:
    case Do::SG: {
      const Tensor value =
          take(i.what == Do::SA ? SlotKind::activation_out : SlotKind::gradient_out, i);
      stats_.bytes_sent += static_cast<int64_t>(value.bytes());
      links_.send(channel_of(i, schedule_.where), value, compute_.record());
      return;
    }
    case Do::RA:
    case Do::RG: {
      const bool activation = i.what == Do::RA;
      // A gradient has the shape of what it is the gradient of: the next stage's input.
      const StageWork::Boundary b = work.boundary(i.stage + (activation ? 0 : 1), i.micro);
      const Tensor into(compute_.device(), b.shape, b.dtype);
      put(activation ? SlotKind::activation : SlotKind::gradient, i, i.stage, into,
          links_.receive(channel_of(i, schedule_.where), into));
      if (!activation) work.expect_gradient(i.stage, i.micro);
      return;
    }
    case Do::G:
      return work.gather_weights(i.stage, i.micro);
    case Do::R:
      return work.release_weights(i.stage, i.micro);
    case Do::S:
      return work.reduce_gradients(i.stage, i.micro);
  }
  fail("an unknown instruction");
}

void PipelineEngine::run_one(const Instruction& i, StageWork& work) {
  if (!listener_) return step(i, work);
  began_ = Clock::now();
  step(i, work);
  listener_({.what = i, .begin = began_, .end = Clock::now()});
}

std::string PipelineEngine::text_of(size_t number) const {
  return cat("pipeline rank ", pipeline_.rank(), " of ", pipeline_.size(), ", instruction ",
             instruction_text(program_[number]), " (", number + 1, " of ", program_.size(), " of ",
             schedule_.name, ")");
}

// Peers are told first: a lane may wait for them.
void PipelineEngine::give_up(std::string_view reason) noexcept {
  links_.abort(reason);
  if (lanes_ == nullptr) return;
  pipeline_.abort(reason);
  lanes_->forward.abandon();
  lanes_->backward.abandon();
}

void PipelineEngine::run(StageWork& work) {
  const auto begin = Clock::now();
  size_t at = 0;
  try {
    Whereabouts* const here = whereabouts();
    for (; at < program_.size(); ++at) {
      if (here != nullptr) here->enter(program_[at]);
      run_one(program_[at], work);
    }
    at = program_.size() - 1;
    settle(true);
    settle(false);
    stats_.step_seconds += seconds_since(begin);
    links_.finish();
  } catch (const PeerFailure& e) {
    give_up(e.what());
    throw PeerFailure(cat(text_of(at), ": ", e.what()));
  } catch (const std::exception& e) {
    give_up(cat(text_of(at), ": ", e.what()));
    throw;
  }
  stats_.instructions += static_cast<int64_t>(program_.size());
  stats_.total_seconds += seconds_since(begin);
}

}  // namespace shoestring

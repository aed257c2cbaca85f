#include "parallel/rehearsal.h"

#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_of(Clock::time_point t) {
  return std::chrono::duration<double>(t.time_since_epoch()).count();
}

class TimedWaits : public StageWork {
 public:
  TimedWaits(Stream& compute, const Schedule& schedule, const RehearsalOptions& options)
      : compute_(compute),
        device_(compute.device()),
        schedule_(schedule),
        where_(schedule.where),
        options_(options) {}

  Boundary boundary(int, int) override { return {.shape = {options_.boundary_elements}}; }
  Tensor forward(int stage, int micro, const Tensor& input) override {
    if (stage > 0) expect(input, stage - 1, micro, "activation");
    pass(Do::F, stage, micro);
    return stage + 1 < where_.stages() ? marked(stage, micro) : Tensor();
  }
  Tensor backward_input(int stage, int micro, const Tensor& gradient) override {
    if (stage + 1 < where_.stages()) expect(gradient, stage + 1, micro, "gradient");
    pass(Do::I, stage, micro);
    return stage > 0 ? marked(stage, micro) : Tensor();
  }
  void backward_weight(int stage, int micro) override { pass(Do::W, stage, micro); }

  void forward_parts(int stage, int micro, const Tensor& input, PartGate& gate) override {
    if (stage > 0) expect(input, stage - 1, micro, "activation");
    for (int k = 0; k < schedule_.parts_of(stage); ++k) part({Do::F, stage, micro, k}, gate);
    gate.give(stage + 1 < where_.stages() ? marked(stage, micro) : Tensor());
  }
  void backward_parts(int stage, int micro, const Tensor& gradient, PartGate& gate) override {
    if (stage + 1 < where_.stages()) expect(gradient, stage + 1, micro, "gradient");
    for (int k = schedule_.parts_of(stage); k-- > 0;) {
      part({Do::I, stage, micro, k}, gate);
      if (k == 0) gate.give(stage > 0 ? marked(stage, micro) : Tensor());
      if (!travels(kind_of(stage, k))) part({Do::W, stage, micro, k}, gate);
    }
  }

  double first_start() const { return first_; }
  double last_end() const { return last_; }
  double exposed() const { return exposed_; }  // of whole passes

 private:
  struct Part {
    Do what;
    int stage, micro, number;
  };
  SegmentKind kind_of(int stage, int number) const {
    return schedule_.segments[static_cast<size_t>(stage)][static_cast<size_t>(number)];
  }
  double units_of(Do what, SegmentKind kind) const {
    const SegmentTimes& t = options_.times.segments[static_cast<size_t>(kind)];
    return what == Do::F ? t.f : what == Do::I ? t.i : t.w;
  }
  void part(const Part& p, PartGate& gate) {
    gate.enter(p.what, p.number);
    const SegmentKind kind = kind_of(p.stage, p.number);
    if (!travels(kind)) return wait(units_of(p.what, kind));
    gate.travel();
    exchange(p, gate.stream());
    gate.leave();
    last_ = seconds_of(Clock::now());
  }
  // A pass that is not in parts, its segments one after the other.
  void pass(Do what, int stage, int micro) {
    const StepTimes& t = options_.times;
    if (schedule_.segments.empty()) {
      const double whole = what == Do::F ? t.f : what == Do::I ? t.i : t.w;
      return wait(whole * where_.share_of_stage());
    }
    double units = 0;
    for (int k = 0; k < schedule_.parts_of(stage); ++k) {
      const SegmentKind kind = kind_of(stage, k);
      if (!travels(kind)) {
        units += units_of(what, kind);
      } else if (what != Do::W) {
        if (units > 0) wait(std::exchange(units, 0));
        const auto begin = Clock::now();
        exchange({what, stage, micro, k}, compute_);
        exposed_ += std::chrono::duration<double>(Clock::now() - begin).count();
        last_ = seconds_of(Clock::now());
      }
    }
    if (units > 0) wait(units);
  }
  // As many rows as take the segment's time, to and from every rank.
  void exchange(const Part& p, Stream& stream) {
    Communicator& ranks = p.what == Do::F ? *options_.rows.forward : *options_.rows.backward;
    const auto peers = static_cast<size_t>(ranks.size());
    const double seconds = units_of(p.what, kind_of(p.stage, p.number)) * options_.seconds_per_unit;
    const double bytes = seconds * options_.rows.bytes_per_second;
    const auto each = static_cast<int64_t>(
        std::ceil(bytes / (sizeof(float) * static_cast<double>(std::max<size_t>(peers, 2) - 1))));
    const auto mark = static_cast<float>((p.stage * where_.micros + p.micro) % 4096);
    std::vector<float> out(peers * static_cast<size_t>(each), mark), in(out.size());
    const std::vector<int64_t> counts(peers, each);
    ranks.all_to_all(view_of(std::span(std::as_const(out))), counts, buffer_of(std::span(in)),
                     counts, stream);
    if (in != out) {
      fail(cat("other rows than those of stage ", p.stage, ", micro-batch ", p.micro,
               " have arrived"));
    }
  }
  // A sleep ends some tens of microseconds late, which is neither arithmetic nor the engine's: the
  // next one is shorter by as much, up to a fiftieth, so that their sum is what it should be.
  void wait(double units) {
    const auto begin = Clock::now();
    if (first_ == 0) first_ = seconds_of(begin);
    const double seconds = units * options_.seconds_per_unit;
    const std::chrono::duration<double> time(seconds - std::min(late_, 0.02 * seconds));
    std::this_thread::sleep_until(begin + std::chrono::duration_cast<Clock::duration>(time));
    last_ = seconds_of(Clock::now());
    late_ = std::max(0.0, last_ - seconds_of(begin) - time.count());
  }
  Tensor marked(int stage, int micro) {
    Tensor t(device_, {options_.boundary_elements}, Dtype::f32);
    std::ranges::fill(t.span<float>(), static_cast<float>(stage * where_.micros + micro));
    return t;
  }
  void expect(const Tensor& t, int stage, int micro, std::string_view what) {
    const auto want = static_cast<float>(stage * where_.micros + micro);
    for (const float value : t.span<float>()) {
      if (value == want) continue;
      fail(cat("the ", what, " of stage ", stage, ", micro-batch ", micro, " should be ", want,
               " but ", value, " has arrived"));
    }
  }

  Stream& compute_;
  Device& device_;
  const Schedule& schedule_;
  const Placement& where_;
  RehearsalOptions options_;
  double first_ = 0, last_ = 0, late_ = 0, exposed_ = 0;
};

}  // namespace

Rehearsal rehearse(Communicator& pipeline, const Schedule& schedule,
                   const RehearsalOptions& options) {
  check(schedule.segments.empty() || (options.rows.forward != nullptr && options.rows.backward),
        "rows that travel need communicators");
  // Sleeps of this thread, and of those that it starts, may otherwise end 50 microseconds late.
  prctl(PR_SET_TIMERSLACK, 1UL);
  Device device(DeviceKind::cpu, 0, 1);
  Stream compute = Stream::immediate(device);
  PipelineEngine engine(pipeline, compute, schedule);
  TimedWaits work(compute, schedule, options);
  barrier(pipeline, compute);
  engine.run(work);

  const auto ranks = static_cast<size_t>(pipeline.size());
  constexpr size_t width = 9;
  const PipelineStats& s = engine.stats();
  const std::array<double, width> own = {work.first_start(),
                                         work.last_end(),
                                         static_cast<double>(s.instructions),
                                         s.compute_seconds,
                                         s.wait_seconds,
                                         s.step_seconds,
                                         s.total_seconds,
                                         static_cast<double>(s.bytes_sent),
                                         s.travel_seconds + work.exposed()};
  std::vector<double> all(ranks * width);
  const std::vector<int64_t> counts(ranks, static_cast<int64_t>(width));
  pipeline.all_gather(view_of(std::span(own)), counts, buffer_of(std::span(all)), compute);
  Rehearsal result;
  double first = all[0], last = 0;
  for (size_t r = 0; r < ranks; ++r) first = std::min(first, all[r * width]);
  for (size_t r = 0; r < ranks; ++r) {
    const double* row = all.data() + r * width;
    last = std::max(last, row[1]);
    result.ranks.push_back({.first_start = row[0] - first,
                            .last_end = row[1] - first,
                            .exposed = row[8],
                            .stats = {.instructions = static_cast<int64_t>(row[2]),
                                      .compute_seconds = row[3],
                                      .wait_seconds = row[4],
                                      .step_seconds = row[5],
                                      .total_seconds = row[6],
                                      .bytes_sent = static_cast<int64_t>(row[7])}});
  }
  result.makespan = last - first;
  return result;
}

}  // namespace shoestring

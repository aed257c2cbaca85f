#include "launcher/run_trace.h"

#include "core/text.h"
#include "parallel/comm/traced.h"

namespace shoestring {
namespace {

std::string_view name_of(Phase phase) {
  if (phase == Phase::forward) return "forward";
  return phase == Phase::input ? "input gradient" : "weight gradient";
}

}  // namespace

std::vector<std::string> gather_texts(Communicator& ranks, const std::string& own) {
  Device host;
  Stream stream = Stream::immediate(host);
  const auto size = static_cast<size_t>(ranks.size());
  const std::vector<int64_t> one_each(size, 1);
  std::vector<int64_t> lengths(size);
  const std::vector<int64_t> length = {static_cast<int64_t>(own.size())};
  ranks.all_gather(view_of(std::span(length)), one_each, buffer_of(std::span(lengths)), stream);
  stream.synchronize();
  int64_t total = 0;
  for (int64_t n : lengths) total += n;
  std::vector<uint8_t> joined(static_cast<size_t>(total));
  const View bytes{reinterpret_cast<const std::byte*>(own.data()), length[0], Dtype::u8};
  ranks.all_gather(bytes, lengths, buffer_of(std::span(joined)), stream);
  stream.synchronize();
  std::vector<std::string> texts;
  auto at = joined.begin();
  for (int64_t n : lengths) {
    texts.emplace_back(at, at + n);
    at += n;
  }
  return texts;
}

RunTrace::RunTrace(const TraceRange& range, int rank)
    : range_(range), rank_(rank), waits_([this](std::string_view what, auto begin, auto end) {
        writer_->event(rank_, "waits", what, writer_->at(begin), writer_->at(end));
      }) {}

RunTrace::~RunTrace() {
  if (writer_) listen_to_waits(nullptr);
}

void RunTrace::ran(const InstructionSpan& span) {
  events_->add(span.what, writer_->at(span.begin), writer_->at(span.end));
}

Communicator& RunTrace::wrap(Communicator& inner) {
  if (range_.empty()) return inner;
  reporting_ = traced(inner, [this](const CommunicationSpan& span) {
    std::lock_guard lock(mutex_);
    if (!writer_) return;
    writer_->event(rank_, communication_lane(span.communicator), name_of(span.op),
                   writer_->at(span.begin), writer_->at(span.end),
                   {{"group", span.communicator}, {"bytes", span.bytes}});
  });
  return *reporting_;
}

bool RunTrace::at_step(int64_t step, Communicator& ranks, const std::string& path) {
  if (range_.empty()) return false;
  if (step >= range_.first && step <= range_.last && !writer_) {
    Device host;
    Stream stream = Stream::immediate(host);
    barrier(ranks, stream);  // every rank's clock starts at the same moment
    stream.synchronize();
    std::lock_guard lock(mutex_);
    writer_ = std::make_shared<TraceWriter>(step_lanes());
    events_.emplace(*writer_, rank_);
    listen_to_waits(&waits_);
    return false;
  }
  if (step <= range_.last || !writer_) return false;
  std::shared_ptr<TraceWriter> done;
  {
    std::lock_guard lock(mutex_);
    done = std::exchange(writer_, nullptr);
    events_.reset();
    listen_to_waits(nullptr);
  }
  const std::vector<std::string> texts = gather_texts(ranks, done->text());
  if (rank_ == 0) write_trace(path, texts);
  return true;
}

void RunTrace::begin(std::string_view op, Phase phase) {
  const std::lock_guard lock(mutex_);
  open_[std::this_thread::get_id()].push_back(
      {cat(op, " ", name_of(phase)), writer_ ? writer_->now() : 0});
}

void RunTrace::end() {
  const std::lock_guard lock(mutex_);
  std::vector<Open>& open = open_[std::this_thread::get_id()];
  const Open op = std::move(open.back());
  open.pop_back();
  if (writer_) writer_->event(rank_, "ops", op.name, op.begin, writer_->now());
}

}  // namespace shoestring

#include "parallel/pipeline_links.h"

#include <algorithm>
#include <set>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/collectives.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

std::vector<Channel> channels_of(const Schedule& schedule) {
  std::vector<Channel> channels;
  for (const Program& program : schedule.ranks) {
    for (const Instruction& i : program) {
      if (!is_transfer(i.what) || is_receipt(i.what)) continue;
      const Channel c = channel_of(i, schedule.where);
      if (std::find(channels.begin(), channels.end(), c) == channels.end()) channels.push_back(c);
    }
  }
  return channels;
}

// Rounds of channels that share no rank: one split of the pipeline makes all pairs of a round.
std::vector<std::vector<Channel>> rounds_of(const std::vector<Channel>& channels) {
  std::vector<std::vector<Channel>> rounds;
  std::vector<std::set<int>> busy;
  for (const Channel& c : channels) {
    size_t round = 0;
    while (round < rounds.size() && (busy[round].contains(c.from) || busy[round].contains(c.to))) {
      ++round;
    }
    if (round == rounds.size()) rounds.emplace_back(), busy.emplace_back();
    rounds[round].push_back(c);
    busy[round].insert({c.from, c.to});
  }
  return rounds;
}

}  // namespace

std::string name_of(const Channel& c) {
  return cat(c.what == Do::SA ? "activations " : "gradients ", c.from, " to ", c.to);
}

PipelineLinks::PipelineLinks(Communicator& pipeline, Device& device, const Schedule& schedule) {
  check(schedule.transfers, "a schedule without transfers has no channels");
  const int rank = pipeline.rank();
  for (const std::vector<Channel>& round : rounds_of(channels_of(schedule))) {
    int color = -1;
    for (size_t k = 0; k < round.size(); ++k) {
      if (round[k].from == rank || round[k].to == rank) color = static_cast<int>(k);
    }
    const bool receives = color >= 0 && round[static_cast<size_t>(color)].to == rank;
    const SplitName name(color < 0 ? std::string() : name_of(round[static_cast<size_t>(color)]));
    std::unique_ptr<Communicator> pair = pipeline.split(color, receives ? 1 : 0);
    if (color < 0) continue;
    const Channel& channel = round[static_cast<size_t>(color)];
    links_.push_back({channel, std::move(pair), Stream::worker(device, name_of(channel))});
  }
}

PipelineLinks::~PipelineLinks() {
  if (std::uncaught_exceptions() > exceptions_) abort("it left by an exception");
}

PipelineLinks::Link& PipelineLinks::link(const Channel& channel) {
  for (Link& link : links_) {
    if (link.channel == channel) return link;
  }
  fail(cat("the schedule has no transfers of ", name_of(channel)));
}

void PipelineLinks::send(const Channel& channel, const Tensor& value, const Event& made) {
  Link& to = link(channel);
  to.stream.wait(made);
  const View out{value.raw(), value.elements(), value.dtype()};
  const Transfer transfer = Transfer::send(1, out);
  to.pair->exchange({&transfer, 1}, to.stream);
  to.stream.run([value] {});  // holds it until here
}

Event PipelineLinks::receive(const Channel& channel, const Tensor& into) {
  Link& from = link(channel);
  const Transfer transfer = Transfer::receive(0, Buffer{into.raw(), into.elements(), into.dtype()});
  from.pair->exchange({&transfer, 1}, from.stream);
  return from.stream.record();
}

void PipelineLinks::finish() {
  const Awaiting waits("transfers");
  for (Link& link : links_) link.stream.synchronize();
}

void PipelineLinks::abort(std::string_view reason) noexcept {
  for (Link& link : links_) link.pair->abort(reason);
}

}  // namespace shoestring

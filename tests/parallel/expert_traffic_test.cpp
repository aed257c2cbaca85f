#include "parallel/expert_traffic.h"

#include <numeric>

#include "tests/parallel/expert_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr int64_t experts = 12, chosen = 3, tokens = 9;

ExpertTraffic plus(ExpertTraffic a, const ExpertTraffic& b) { return a += b; }

// Both views of one exchange, summed over its ranks, and the numbers by the choices alone.
TEST(ExpertTraffic, SendersAndReceiversAgree) {
  for (const Standing& s : {Standing{.ranks = 2}, Standing{.ranks = 3},
                            Standing{.ranks = 1, .slices = 2}, Standing{.ranks = 3, .slices = 2}}) {
    for (const Load load : {Load::random, Load::last_rank, Load::nothing_at_home}) {
      std::vector<ExpertTraffic> sent(static_cast<size_t>(s.all())), got(sent);
      run_ranks(s.all(), [&](Communicator& world) {
        Device device(DeviceKind::cpu, 0, 1);
        Stream stream = Stream::immediate(device);
        const GroupOf g(world, s, experts);
        const Choice c = choices_of(device, load, world.rank(), {tokens, chosen, experts, s.ranks});
        const auto plan = plan_experts(stream, g.group, c.ids, c.gates, 0);
        const auto rank = static_cast<size_t>(world.rank());
        sent[rank] = sent_by(*plan);
        got[rank] = sent_to(plan->offsets.span<int32_t>(), g.group);
      });
      int64_t leave = 0, rows = 0;
      Device device;
      for (int r = 0; r < s.all(); ++r) {
        const Tensor ids = choices_of(device, load, r, {tokens, chosen, experts, s.ranks}).ids;
        for (const int32_t id : ids.span<int32_t>()) {
          leave += id / (experts / s.ranks) != r / s.slices ? 1 : 0;
          ++rows;
        }
      }
      const ExpertTraffic a = std::accumulate(sent.begin(), sent.end(), ExpertTraffic{}, plus);
      const ExpertTraffic b = std::accumulate(got.begin(), got.end(), ExpertTraffic{}, plus);
      EXPECT_EQ(a.choices, leave) << s.text();
      EXPECT_EQ(a.given, rows * (s.slices - 1)) << s.text();
      EXPECT_EQ(a.tokens, a.choices);
      EXPECT_EQ(b.tokens, a.tokens) << s.text();
      EXPECT_EQ(b.choices, a.choices) << s.text();
      EXPECT_EQ(b.given, a.given) << s.text();
    }
  }
}

// On two levels a token crosses once for all its experts of a node.
TEST(ExpertTraffic, TokensCrossOnce) {
  run_ranks(8, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    const Standing s{.ranks = 4, .nodes = 2, .slices = 2};
    const GroupOf g(world, s, experts);
    const Choice c =
        choices_of(device, Load::one_expert, world.rank(), {tokens, chosen, experts, s.ranks});
    const ExpertTraffic sent = sent_by(*plan_experts(stream, g.group, c.ids, c.gates, 0));
    // Experts 0 to 2 are of the first rank: each token's three choices leave the second node as one
    // row, and then the relay, where that is another rank.
    const int rank = world.rank() / 2;
    const bool away = rank >= 2, relays = rank == 1;
    check(sent.choices_across == (away ? tokens * chosen : 0), "choices that cross");
    check(sent.tokens == (away ? tokens : 0) + (relays ? 2 * tokens * chosen : 0),
          "rows of tokens");
    check(sent.choices == sent.choices_across + (relays ? 2 * tokens * chosen : 0), "of choices");
    check(sent.given == (rank == 0 ? 4 * tokens * chosen : 0), "rows for the other slice");
  });
}

}  // namespace
}  // namespace shoestring

// The two-level form of parallel/expert_plan.h.
#include <set>

#include "parallel/comm/checked.h"
#include "parallel/comm/counting.h"
#include "parallel/expert_plan.h"
#include "tests/parallel/expert_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr int64_t experts = 24, chosen = 5, tokens = 11;
const Standing standings[] = {{.ranks = 1, .nodes = 1},
                              {.ranks = 2, .nodes = 2},
                              {.ranks = 3, .nodes = 3},
                              {.ranks = 4, .nodes = 2},
                              {.ranks = 4, .nodes = 1},
                              {.ranks = 6, .nodes = 3},
                              {.ranks = 8, .nodes = 2},
                              {.ranks = 8, .nodes = 4},
                              {.ranks = 4, .nodes = 2, .slices = 2},
                              {.ranks = 2, .nodes = 2, .slices = 3}};
const Load loads[] = {Load::random, Load::one_expert, Load::last_rank, Load::own_rank,
                      Load::nothing_at_home};

int64_t tokens_of(int rank, bool ragged) { return ragged ? tokens * (rank % 3) : tokens; }

// Both levels bring the same rows in the same order, with and without a capacity, also when ranks
// have other numbers of tokens, or none.
TEST(ExpertNodes, BringTheRowsOfOneLevel) {
  for (const Standing& s : standings) {
    for (Load load : loads) {
      for (bool ragged : {false, true}) {
        for (double capacity : {0.0, 1.5}) {
          run_ranks(s.all(), [&](Communicator& world) {
            Device device(DeviceKind::cpu, 0, 1);
            Stream stream = Stream::immediate(device);
            const auto safe = checked(world);
            const GroupOf flat(*safe, {.ranks = s.ranks, .slices = s.slices}, experts),
                nodes(*safe, s, experts);
            const int64_t T = tokens_of(world.rank(), ragged);
            const Choice c = choices_of(device, load, world.rank(), {T, chosen, experts, s.ranks});
            const auto one = plan_of(stream, flat.group, c, capacity);
            const auto two = plan_of(stream, nodes.group, c, capacity);
            check_same_bits(two->offsets, one->offsets, "offsets");
            const Tensor x = normal_tensor(device, {T, 3}, Dtype::f32, cat("x ", world.rank()));
            const Tensor rows = travel(stream, one->tokens, x);
            check_same_bits(travel(stream, two->tokens, x), rows, s.text());
            const Tensor home = travel_back(stream, one->choices, rows);
            check_same_bits(travel_back(stream, two->choices, rows), home, "back");
            const Tensor choices = travel(stream, one->choices, home);
            check_same_bits(travel(stream, two->choices, home), choices, "choices");
            if (s.slices == 1) check_same_bits(choices, rows, "there and back");
          });
        }
      }
    }
  }
}

// A token's row crosses to another node once, whatever the number of its experts there.
TEST(ExpertNodes, BytesOnTheWireAreTheFormula) {
  constexpr int64_t d = 10, w = 4 * d;
  for (const Standing& s : standings) {
    for (Load load : loads) {
      run_ranks(s.all(), [&](Communicator& world) {
        Device device(DeviceKind::cpu, 0, 1);
        Stream stream = Stream::immediate(device);
        const auto traffic = std::make_shared<Traffic>();
        const auto counted = counting(world, traffic);
        const GroupOf g(*counted, s, experts);
        auto ids_of = [&](int r) {
          return choices_of(device, load, r, {tokens, chosen, experts, s.ranks}).ids;
        };
        const int me = world.rank() / s.slices, slice = world.rank() % s.slices;
        const int n = s.nodes, l = s.ranks / n, others = s.slices - 1;
        const Choice c = choices_of(device, load, world.rank(), {tokens, chosen, experts, s.ranks});
        // From the choices of all ranks.
        int64_t leaving = 0, dispatch = 0, combine = 0;
        for (int source = 0; source < s.all(); ++source) {
          const Tensor ids = ids_of(source);
          const int r = source / s.slices;
          std::set<std::pair<int64_t, int64_t>> crossings;
          for (int64_t i = 0; i < ids.elements(); ++i) {
            const int64_t to = ids.data<int32_t>()[i] / (experts / s.ranks), node = to / l;
            if (source % s.slices != slice) {
              combine += to == me ? w : 0;
              continue;
            }
            dispatch += to == me ? w * others : 0;
            const int64_t relay = node * l + r % l;
            const bool crosses = node != r / l;
            if (crosses) crossings.insert({i / chosen, node});
            leaving += r == me && crosses;
            dispatch += relay == me && to != me ? w : 0;  // inside
            combine += to == me && relay != me ? w : 0;   // inside
            combine += relay == me && crosses ? w : 0;    // across
          }
          if (r == me) dispatch += static_cast<int64_t>(crossings.size()) * w;
        }
        traffic->reset();
        const auto plan = plan_of(stream, g.group, c, 0);
        const int64_t counts = 4 * (n - 1) * (experts / n + 1) +
                               4 * (l - 1) * n * (experts / s.ranks) + 4 * leaving +
                               4 * experts * others;
        check(traffic->total_bytes() == counts,
              cat("counts sent ", traffic->total_bytes(), ", formula ", counts));
        traffic->reset();
        const Tensor rows =
            travel(stream, plan->tokens, normal_tensor(device, {tokens, d}, Dtype::f32, "x"));
        check(traffic->total_bytes() == dispatch && bytes_there(plan->tokens, w) == dispatch,
              cat("dispatch sent ", traffic->total_bytes(), ", formula ", dispatch));
        traffic->reset();
        travel_back(stream, plan->choices, rows);
        check(traffic->total_bytes() == combine && bytes_back(plan->choices, w) == combine,
              cat("combine sent ", traffic->total_bytes(), ", formula ", combine));
      });
    }
  }
}

// What sums inside nodes need: each token that came names its choices' rows by expert, the gates
// come to the same slots, and go home again.
TEST(ExpertNodes, SlotsHoldTheChoicesOfEachToken) {
  for (Standing s : standings) {
    s.sum_in_nodes = true;
    run_ranks(s.all(), [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream stream = Stream::immediate(device);
      const GroupOf g(world, s, experts);
      const Choice c =
          choices_of(device, Load::random, world.rank(), {tokens, chosen, experts, s.ranks});
      const auto plan = plan_of(stream, g.group, c, 1.2);
      const NodeSums& sums = *plan->sums;
      // Each choice's gate and its row of x, a number made of both token and rank, meet.
      Tensor x(device, {tokens, 1}, Dtype::f32), gates(device, {tokens * chosen, 1}, Dtype::f32);
      for (int64_t i = 0; i < tokens * chosen; ++i) {
        const auto mark = static_cast<float>(world.rank() * 1000 + i / chosen);
        x.data<float>()[i / chosen] = mark;
        gates.data<float>()[i] = mark + static_cast<float>(i % chosen) / 8;
      }
      const Tensor at_relay = travel_back(stream, sums.inside, travel(stream, plan->tokens, x));
      const Tensor slots = travel(stream, sums.gates, gates);
      int64_t used = 0;
      for (int64_t i = 0; i < slots.elements(); ++i) {
        const int32_t row = sums.node_rows.data<int32_t>()[i];
        if (row < 0) {
          check(slots.data<float>()[i] == 0, "free slots weigh nothing");
          continue;
        }
        ++used;
        const float mark = at_relay.data<float>()[row] / static_cast<float>(s.slices);
        check(std::floor(slots.data<float>()[i]) == mark, "a slot's gate and row are of one token");
        check(i % chosen == 0 || sums.node_rows.data<int32_t>()[i - 1] < row, "by expert");
      }
      check(used == at_relay.rows(), "every row has a slot");
      const Tensor back = travel_back(stream, sums.gates, slots);
      for (int64_t i = 0; i < gates.elements(); ++i) {
        const bool dropped = plan->own.row_of.data<int32_t>()[i] < 0;
        check(back.data<float>()[i] == (dropped ? 0 : gates.data<float>()[i]), "gates at home");
      }
    });
  }
}

}  // namespace
}  // namespace shoestring

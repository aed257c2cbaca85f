// The two-level form of parallel/expert_plan.h.
#include <chrono>
#include <future>
#include <numeric>
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

// With fixed rows each piece has its rows in front of zeros; what the experts get, and what comes
// home, is that of exact counts.
TEST(ExpertNodes, FixedRowsArePaddedWithZeros) {
  for (Standing s : standings) {
    for (Load load : loads) {
      for (const auto& [capacity, fixed] : {std::pair{1e6, tokens}, {1e6, tokens + 2}, {1.5, 4L}}) {
        run_ranks(s.all(), [&, capacity = capacity, fixed = fixed](Communicator& world) {
          Device device(DeviceKind::cpu, 0, 1);
          Stream stream = Stream::worker(device, "compute");
          const auto safe = checked(world);
          const GroupOf exact(*safe, s, experts);
          Standing padded = s;
          padded.fixed_rows = fixed;
          const GroupOf filled(*safe, padded, experts);
          const Choice c =
              choices_of(device, load, world.rank(), {tokens, chosen, experts, s.ranks});
          const auto one = plan_of(stream, exact.group, c, capacity);
          const auto two = plan_of(stream, filled.group, c, capacity);
          const Tensor x = normal_tensor(device, {tokens, 3}, Dtype::f32, cat("x ", world.rank()));
          const Tensor want = travel(stream, one->tokens, x), got = travel(stream, two->tokens, x);
          const Tensor home = travel_back(stream, one->choices, want);
          const Tensor back = travel_back(stream, two->choices, got);
          const Tensor of_home = travel(stream, one->choices, home);
          const Tensor of_back = travel(stream, two->choices, home);
          stream.synchronize();
          check_same_bits(two->offsets, one->offsets, "offsets");
          check(got.rows() == experts * s.slices * fixed, cat(got.rows(), " rows with padding"));
          check_same_bits(got.rows(0, want.rows()), want, padded.text());
          for (const float v : got.rows(want.rows(), got.rows()).span<float>()) {
            check(v == 0, "padding is zeros");
          }
          check_same_bits(back, home, "back");
          check_same_bits(of_back.rows(0, of_home.rows()), of_home, "choices");
        });
      }
    }
  }
}

// The stream has done nothing yet when the plan is made and its rows are on their way.
TEST(ExpertNodes, FixedRowsLetTheHostGoOn) {
  for (const bool sums : {false, true}) {
    run_ranks(4, [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream stream = Stream::worker(device, "compute");
      const Standing s{.ranks = 4, .nodes = 2, .fixed_rows = tokens, .sum_in_nodes = sums};
      const GroupOf g(world, s, experts);
      const Choice c =
          choices_of(device, Load::random, world.rank(), {tokens, chosen, experts, s.ranks});
      const Tensor x = normal_tensor(device, {tokens, 3}, Dtype::f32, "x");
      std::promise<void> planned;
      const std::shared_future<void> told = planned.get_future().share();
      std::future_status seen = std::future_status::deferred;
      stream.run([told, &seen] { seen = told.wait_for(std::chrono::seconds(5)); });
      const auto plan = plan_of(stream, g.group, c, 1e6);
      const Tensor there = travel(stream, plan->tokens, x);
      planned.set_value();
      stream.synchronize();
      check(seen == std::future_status::ready, "the host waited for the stream");
    });
  }
}

// Of a rank's tokens all may go to a node, and all choices, but no more than its experts take.
TEST(ExpertNodes, BytesOfFixedRowsAreTheFormula) {
  constexpr int64_t d = 10, w = 4 * d;
  for (const Standing& s : standings) {
    for (const int64_t fixed : {int64_t{1}, tokens}) {
      run_ranks(s.all(), [&](Communicator& world) {
        Device device(DeviceKind::cpu, 0, 1);
        Stream stream = Stream::immediate(device);
        const auto traffic = std::make_shared<Traffic>();
        const auto counted = counting(world, traffic);
        Standing padded = s;
        padded.fixed_rows = fixed;
        const GroupOf g(*counted, padded, experts);
        Choice c =
            choices_of(device, Load::own_rank, world.rank(), {tokens, chosen, experts, s.ranks});
        if (fixed == 1) {  // each choice is of an expert that no other has
          c = {.ids = c.ids.rows(0, experts / chosen), .gates = c.gates.rows(0, experts / chosen)};
          const std::span<int32_t> ids = c.ids.span<int32_t>();
          std::iota(ids.begin(), ids.end(), 0);
        }
        const int64_t T = c.ids.rows(), n = s.nodes, l = s.ranks / n, here = experts / s.ranks;
        const int64_t of_node = std::min(T, fixed * experts / n);
        const int64_t choices = std::min(T * chosen, fixed * experts / n);
        const int64_t inside = (l - 1) * n * fixed * here, given = (s.slices - 1) * s.ranks * here;
        traffic->reset();
        const auto plan = plan_of(stream, g.group, c, 1e6);
        const int64_t counts = 4 * (n - 1) * (experts / n + 1) + 4 * (l - 1) * n * here +
                               4 * (n - 1) * choices + 4 * experts * (s.slices - 1);
        check(traffic->total_bytes() == counts,
              cat("counts sent ", traffic->total_bytes(), ", formula ", counts));
        traffic->reset();
        const Tensor rows =
            travel(stream, plan->tokens, normal_tensor(device, {T, d}, Dtype::f32, "x"));
        const int64_t dispatch = w * ((n - 1) * of_node + inside + given * fixed);
        check(traffic->total_bytes() == dispatch && bytes_there(plan->tokens, w) == dispatch,
              cat("dispatch sent ", traffic->total_bytes(), ", formula ", dispatch));
        traffic->reset();
        travel_back(stream, plan->choices, rows);
        const int64_t combine = w * ((n - 1) * choices + inside + given * fixed);
        check(traffic->total_bytes() == combine && bytes_back(plan->choices, w) == combine,
              cat("combine sent ", traffic->total_bytes(), ", formula ", combine));
      });
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
  for (size_t i = 0; i < 2 * std::size(standings); ++i) {
    Standing s = standings[i / 2];
    s.sum_in_nodes = true;
    s.fixed_rows = i % 2 == 0 ? 0 : 5;
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
        const auto mark = static_cast<float>(world.rank() * 1000 + 1 + i / chosen);
        x.data<float>()[i / chosen] = mark;
        gates.data<float>()[i] = mark + static_cast<float>(i % chosen) / 8;
      }
      const Tensor at_relay = travel_back(stream, sums.inside, travel(stream, plan->tokens, x));
      const Tensor slots = travel(stream, sums.gates, gates);
      std::set<int32_t> used;
      for (int64_t i = 0; i < slots.elements(); ++i) {
        const int32_t row = sums.node_rows.data<int32_t>()[i];
        if (row < 0) {
          check(slots.data<float>()[i] == 0, "free slots weigh nothing");
          continue;
        }
        used.insert(row);
        const float mark = at_relay.data<float>()[row] / static_cast<float>(s.slices);
        check(std::floor(slots.data<float>()[i]) == mark, "a slot's gate and row are of one token");
        check(i % chosen == 0 || sums.node_rows.data<int32_t>()[i - 1] < row, "by expert");
      }
      for (int32_t row = 0; row < at_relay.rows(); ++row) {
        const bool free = used.count(row) == 0;
        check(free ? at_relay.data<float>()[row] == 0 : true, "every row has a slot");
        check(!free || s.fixed_rows > 0, "exact counts have no padding");
      }
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

#include "parallel/expert_plan.h"

#include <mutex>

#include "parallel/comm/checked.h"
#include "parallel/comm/counting.h"
#include "tests/parallel/expert_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr int64_t experts = 24, chosen = 3, tokens = 13;

int64_t tokens_of(int rank, bool ragged) { return ragged ? tokens * (rank % 3) : tokens; }

std::vector<int32_t> list_of(const Tensor& x) {
  return {x.data<int32_t>(), x.data<int32_t>() + x.elements()};
}

// Every row's number, by definition: (expert, source, token) as one rank would list them.
std::vector<float> rows_at(int rank, Load load, const Standing& s, bool ragged, bool by_choice) {
  Device device;
  std::vector<float> rows;
  const int64_t here = experts / s.ranks, group = rank / s.slices;
  for (int64_t e = group * here; e < (group + 1) * here; ++e) {
    for (int r = 0; r < s.all(); ++r) {
      const int64_t T = tokens_of(r, ragged);
      const Choice c = choices_of(device, load, r, {T, chosen, experts, s.ranks});
      for (int64_t i = 0; i < T * chosen; ++i) {
        if (c.ids.data<int32_t>()[i] != e) continue;
        rows.push_back(static_cast<float>(r * 1000 + (by_choice ? i : i / chosen)));
      }
    }
  }
  return rows;
}

Tensor numbered(Device& device, int64_t rows, int rank) {
  Tensor x(device, {rows, 1}, Dtype::f32);
  for (int64_t i = 0; i < rows; ++i) x.data<float>()[i] = static_cast<float>(rank * 1000 + i);
  return x;
}

// Tokens and choices arrive sorted by (expert, source rank, token), and choices come back.
void check_plan(Communicator& world, const Standing& s, Load load, bool ragged) {
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  const auto safe = checked(world);
  const GroupOf g(*safe, s, experts);
  const int rank = world.rank();
  const int64_t T = tokens_of(rank, ragged);
  const Choice c = choices_of(device, load, rank, {T, chosen, experts, s.ranks});
  // With room for all choices nothing is dropped.
  const auto plan = plan_of(stream, g.group, c, s.fixed_rows > 0 ? 1e6 : 0);
  auto check_rows = [&](const Tensor& got, bool by_choice) {
    const std::vector<float> want = rows_at(rank, load, s, ragged, by_choice);
    const std::span<const float> values = got.span<float>();
    check(values.size() >= want.size() && std::equal(want.begin(), want.end(), values.begin()),
          cat("rows of rank ", rank, " of ", s.text()));
    for (size_t i = want.size(); i < values.size(); ++i) check(values[i] == 0, "padding is zeros");
    check(s.fixed_rows > 0 || values.size() == want.size(), "exact counts have no padding");
    check(plan->offsets.span<int32_t>().back() == static_cast<int32_t>(want.size()), "offsets");
  };
  check_rows(travel(stream, plan->tokens, numbered(device, T, rank)), false);
  const Tensor home = take_rows(stream, numbered(device, T * chosen, rank), plan->own.choice_of,
                                MemoryKind::workspace);
  const Tensor there = travel(stream, plan->choices, home);
  check_rows(there, true);
  // Each slice gives its part, here the rows themselves.
  for (float& x : home.span<float>()) x *= static_cast<float>(s.slices);
  check_same_bits(travel_back(stream, plan->choices, there), home, "choices at home");
}

TEST(ExpertPlan, RowsStandByExpertSourceAndToken) {
  for (const Standing& s :
       {Standing{.ranks = 1}, Standing{.ranks = 2}, Standing{.ranks = 3}, Standing{.ranks = 8},
        Standing{.ranks = 24}, Standing{.ranks = 3, .fixed_rows = tokens},
        Standing{.ranks = 1, .slices = 3}, Standing{.ranks = 4, .slices = 2},
        Standing{.ranks = 3, .fixed_rows = tokens, .slices = 2}}) {
    for (Load load :
         {Load::random, Load::one_expert, Load::last_rank, Load::own_rank, Load::nothing_at_home}) {
      if (s.ranks == 24 && load != Load::random) continue;  // one expert a rank
      for (bool ragged : {false, true}) {
        if (ragged && s.fixed_rows > 0) continue;
        run_ranks(s.all(), [&](Communicator& world) { check_plan(world, s, load, ragged); });
      }
    }
  }
}

// What is dropped never travels, and is counted at home. Here each rank has a micro-batch.
TEST(ExpertPlan, DropsAtHome) {
  for (int64_t fixed : {0, 9}) {
    run_ranks(2, [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream stream = Stream::immediate(device);
      const GroupOf g(world, {.ranks = 2, .fixed_rows = fixed}, experts);
      const Choice c =
          choices_of(device, Load::one_expert, world.rank(), {tokens, chosen, experts, 2});
      const double capacity = 5;  // ceil(5 * 39 / 24) = 9 rows of 13
      const auto plan = plan_of(stream, g.group, c, capacity);
      check(plan->own.offsets.span<int32_t>().back() == 27, "nine rows of each expert stay");
      const std::vector<int32_t> offsets = list_of(plan->offsets);
      check(offsets.back() == (world.rank() == 0 ? 54 : 0), "experts 0 to 2 are at rank 0");
      check(plan->tokens.order.to == (fixed > 0 ? experts * fixed : offsets.back()), "rows");
    });
  }
}

// A rank's tokens are a part of a micro-batch: of all that an expert takes of it they may have any
// number, but no more than they are.
TEST(ExpertPlan, FixedRowsOfACapacityHoldAnyPartOfAMicroBatch) {
  for (const auto& [most, fixed] : {std::pair<int64_t, int64_t>(tokens - 4, tokens - 4),
                                    {tokens, tokens},
                                    {10 * tokens, tokens}}) {
    run_ranks(2, [&, most = most, fixed = fixed](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream stream = Stream::immediate(device);
      const auto traffic = std::make_shared<Traffic>();
      const auto counted = counting(world, traffic);
      GroupOf g(*counted, {.ranks = 2}, experts);
      g.group.rows_of_capacity = true;
      const Choice c =
          choices_of(device, Load::one_expert, world.rank(), {tokens, chosen, experts, 2});
      // All rows that an expert takes are rank 0's.
      for (int64_t i = 0; i < c.ids.elements(); ++i) {
        if (world.rank() == 1 || i / chosen >= most) c.ids.data<int32_t>()[i] = -1;
      }
      const auto plan = plan_experts(stream, g.group, c.ids, most);
      const int64_t stay = world.rank() == 1 ? 0 : chosen * std::min(most, tokens);
      check(plan->own.offsets.span<int32_t>().back() == stay, "rows of these tokens");
      traffic->reset();
      const Tensor rows = travel(stream, plan->tokens, numbered(device, tokens, world.rank()));
      check(rows.rows() == experts * fixed, cat(rows.rows(), " rows, padding included"));
      check(traffic->total_bytes() == 4 * experts / 2 * fixed, "bytes of rows for the other rank");
      check(plan->offsets.span<int32_t>().back() ==
                (world.rank() == 0 ? chosen * std::min(most, tokens) : 0),
            "all of them arrived");
    });
  }
}

TEST(ExpertPlan, FixedRowsMustHoldWhatTheCapacityLets) {
  try {
    run_ranks(2, [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream stream = Stream::immediate(device);
      const GroupOf g(world, {.ranks = 2, .fixed_rows = 8}, experts);
      const Choice c =
          choices_of(device, Load::one_expert, world.rank(), {tokens, chosen, experts, 2});
      plan_of(stream, g.group, c, 5);
    });
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("gets 9 rows of one rank, more than the 8"),
              std::string::npos)
        << error.what();
  }
}

// The formula of the header, from the choices alone.
struct Bytes {
  int64_t counts = 0, dispatch = 0, combine = 0;
};
Bytes formula(int world_rank, const Standing& s, Load load, int64_t w, int64_t back) {
  Device device;
  const int64_t e = s.ranks, here = experts / e, others = s.slices - 1;
  const int rank = world_rank / s.slices, slice = world_rank % s.slices;
  Bytes b{.counts = 4 * (e - 1) * here + 4 * experts * others};
  auto ids_of = [&](int r) {
    return list_of(choices_of(device, load, r, {tokens, chosen, experts, e}).ids);
  };
  if (s.fixed_rows > 0) {
    b.dispatch = w * (e - 1 + e * others) * here * s.fixed_rows;
    b.combine = back * (e - 1 + e * others) * here * s.fixed_rows;
    return b;
  }
  for (int r = 0; r < s.all(); ++r) {
    const int from = r / s.slices;
    const bool straight = r % s.slices == slice;
    for (int32_t id : ids_of(r)) {
      const bool arrives = id / here == rank;
      b.dispatch += r == world_rank && !arrives ? w : 0;
      b.dispatch += straight && arrives ? w * others : 0;
      b.combine += straight && from != rank && arrives ? back : 0;
      b.combine += !straight && arrives ? back : 0;
    }
  }
  return b;
}

TEST(ExpertPlan, BytesOnTheWireAreTheFormula) {
  constexpr int64_t d = 10;
  for (const Standing& s : {Standing{.ranks = 2}, Standing{.ranks = 4}, Standing{.ranks = 8},
                            Standing{.ranks = 4, .fixed_rows = tokens},
                            Standing{.ranks = 1, .slices = 2}, Standing{.ranks = 2, .slices = 3},
                            Standing{.ranks = 2, .fixed_rows = tokens, .slices = 2}}) {
    for (Load load : {Load::random, Load::last_rank, Load::own_rank}) {
      run_ranks(s.all(), [&](Communicator& world) {
        Device device(DeviceKind::cpu, 0, 1);
        Stream stream = Stream::immediate(device);
        const auto traffic = std::make_shared<Traffic>();
        const auto counted = counting(world, traffic);
        const GroupOf g(*counted, s, experts);
        const Choice c = choices_of(device, load, world.rank(), {tokens, chosen, experts, s.ranks});
        traffic->reset();
        const auto plan = plan_of(stream, g.group, c, s.fixed_rows > 0 ? 1e6 : 0);
        const Bytes want = formula(world.rank(), s, load, 4 * d, 4 * d);
        check(traffic->total_bytes() == want.counts, "bytes of counts");
        traffic->reset();
        const Tensor x = normal_tensor(device, {tokens, d}, Dtype::f32, "x");
        const Tensor rows = travel(stream, plan->tokens, x);
        check(traffic->total_bytes() == want.dispatch &&
                  bytes_there(plan->tokens, 4 * d) == want.dispatch,
              cat("dispatch sent ", traffic->total_bytes(), ", formula ", want.dispatch));
        traffic->reset();
        travel_back(stream, plan->choices, rows);
        check(traffic->total_bytes() == want.combine &&
                  bytes_back(plan->choices, 4 * d) == want.combine,
              cat("combine sent ", traffic->total_bytes(), ", formula ", want.combine));
      });
    }
  }
}

std::string refusal(const std::function<void(Communicator&)>& body, int ranks = 2) {
  try {
    run_ranks(ranks, body);
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

TEST(ExpertPlan, RefusesGroupsThatDoNotFit) {
  auto holds = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  holds(refusal([](Communicator& c) { validate({.experts = 3, .ranks = &c}); }),
        "3 experts cannot be shared out evenly among 2 ranks");
  holds(refusal([](Communicator& c) { validate({.experts = 2, .ranks = &c, .across = &c}); }),
        "nodes need both communicators");
  const std::string all = refusal(
      [](Communicator& c) { validate({.experts = 3, .ranks = &c, .across = &c, .inside = &c}); });
  holds(all, "3 experts");
  holds(all, "2 nodes of 2 ranks are not the 2 ranks");
  holds(
      refusal([](Communicator& c) { validate({.experts = 2, .ranks = &c, .sum_in_nodes = true}); }),
      "sums in nodes need nodes");
  holds(refusal([](Communicator& c) { validate({.experts = 2, .ranks = &c, .fixed_rows = -1}); }),
        "must not be negative");
  holds(refusal([](Communicator& c) {
          validate({.experts = 2});
          c.abort("done");
        }),
        "no ranks");
  // Node by node, but with the ranks of a node apart.
  holds(refusal(
            [](Communicator& c) {
              const auto across = c.split(c.rank() / 2, c.rank());
              const auto inside = c.split(c.rank() % 2, c.rank());
              validate({.experts = 4, .ranks = &c, .across = across.get(), .inside = inside.get()});
            },
            4),
        "ranks of a node must be consecutive");
}

}  // namespace
}  // namespace shoestring

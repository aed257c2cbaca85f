#include "parallel/expert_ops.h"

#include "core/fp8/packed_rows.h"
#include "core/ops/combine.h"
#include "tests/parallel/expert_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr int64_t experts = 12, chosen = 3, tokens = 9, d = 5;
const Standing standings[] = {{.ranks = 2},
                              {.ranks = 3},
                              {.ranks = 4, .nodes = 2},
                              {.ranks = 4, .nodes = 2, .sum_in_nodes = true},
                              {.ranks = 3, .fixed_rows = tokens},
                              {.ranks = 4, .nodes = 2, .fixed_rows = tokens},
                              {.ranks = 4, .nodes = 2, .fixed_rows = 4, .sum_in_nodes = true},
                              {.ranks = 1, .slices = 2},
                              {.ranks = 2, .fixed_rows = tokens, .slices = 2},
                              {.ranks = 2, .nodes = 2, .sum_in_nodes = true, .slices = 2},
                              {.ranks = 2, .nodes = 2, .fixed_rows = tokens, .slices = 2}};

double dot(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "shapes of a product");
  double sum = 0;
  for (int64_t i = 0; i < a.elements(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

// <A x, y> and <x, A' y> over all ranks.
using Pair = std::array<double, 2>;
Pair sum_over_ranks(Communicator& world, Stream& stream, Pair pair) {
  world.all_reduce(buffer_of(std::span<double>(pair)), Reduce::sum, stream);
  stream.synchronize();
  return pair;
}
void check_adjoint(Communicator& world, Stream& stream, Pair pair, const std::string& what) {
  const Pair sums = sum_over_ranks(world, stream, pair);
  check(sums[0] != 0 && std::abs(sums[0] - sums[1]) <= 1e-12 * std::abs(sums[0]),
        cat(what, ": <Ax, y> = ", sums[0], ", <x, A'y> = ", sums[1]));
}

struct Rank {
  Rank(Communicator& world, const Standing& s, double capacity)
      : g(world, s, experts), name(cat("rank ", world.rank())) {
    const Choice c = choices_of(device, Load::random, world.rank(),
                                {tokens, chosen, experts, s.ranks}, Dtype::f64);
    gates = c.gates;
    plan = plan_of(stream, g.group, c, capacity);
  }
  Tensor values(const Shape& shape, const std::string& what, Dtype dtype = Dtype::f64) {
    return normal_tensor(device, shape, dtype, cat(name, " ", what));
  }
  Device device{DeviceKind::cpu, 0, 1};
  Stream stream = Stream::immediate(device);
  GroupOf g;
  std::string name;
  Tensor gates;
  std::shared_ptr<const ExpertPlan> plan;
};

TEST(ExpertOps, GradientsAreAdjoints) {
  for (const Standing& s : standings) {
    for (double capacity : {0.0, 0.8}) {
      if (capacity == 0 && s.fixed_rows > 0) continue;
      run_ranks(s.all(), [&](Communicator& world) {
        Rank r(world, s, capacity);
        NothingSaved nothing;
        const Tensor x = r.values({tokens, d}, "x");
        const ExpertSend::Attributes send{.plan = r.plan, .encoding = {}};
        const Tensor rows = ExpertSend::forward(r.stream, send, {x}, nothing)[0];
        const Tensor y = r.values(rows.shape(), "y");
        const Tensor dx = ExpertSend::grad_input(r.stream, send, nothing, {y})[0];
        check_adjoint(world, r.stream, {dot(rows, y), dot(x, dx)}, "send " + s.text());
        const ExpertReturn::Attributes back{.way = {r.plan, &r.plan->choices}, .encoding = {}};
        const Tensor home = ExpertReturn::forward(r.stream, back, {y}, nothing)[0];
        check(home.shape() == Shape({tokens * chosen, d}), "one row a choice");
        // Rows of choices that were dropped stand behind the others and mean nothing.
        Tensor z = r.values(home.shape(), "z");
        const Tensor rest = z.rows(r.plan->own.offsets.span<int32_t>().back(), z.rows());
        std::memset(rest.raw(), 0, rest.bytes());
        const Tensor dy = ExpertReturn::grad_input(r.stream, back, nothing, {z})[0];
        check_adjoint(world, r.stream, {dot(home, z), dot(y, dy)}, "return " + s.text());
        if (!r.plan->sums) return;
        const ExpertGates::Attributes gates{.plan = r.plan};
        const Tensor slots = ExpertGates::forward(r.stream, gates, {r.gates}, nothing)[0];
        check(slots.shape() == r.plan->sums->node_rows.shape(), "slots");
        const Tensor v = r.values(slots.shape(), "v");
        const Tensor dgates = ExpertGates::grad_input(r.stream, gates, nothing, {v})[0];
        check_adjoint(world, r.stream, {dot(slots, v), dot(r.gates, dgates)}, "gates");
      });
    }
  }
}

TEST(ExpertOps, GiveNothingForNothing) {
  run_ranks(2, [](Communicator& world) {
    Rank r(world, {.ranks = 2}, 0);
    NothingSaved nothing;
    check(!ExpertSend::grad_input(r.stream, {.plan = r.plan, .encoding = {}}, nothing, {})[0] &&
              !ExpertReturn::grad_input(
                  r.stream, {.way = {r.plan, &r.plan->choices}, .encoding = {}}, nothing, {})[0] &&
              !ExpertGates::grad_input(r.stream, {.plan = r.plan}, nothing, {})[0],
          "no gradient of what nobody used");
  });
}

// In FP8 codes and scales travel, made at home: the same as codes made of the rows after their way.
TEST(ExpertOps, CodesTravelAsTheyAre) {
  const Fp8Encoding encoding{.tile = {1, 4}, .scales = ScaleKind::power_of_two};
  for (const Standing& s : standings) {
    run_ranks(s.all(), [&](Communicator& world) {
      Rank r(world, s, s.fixed_rows == 0 ? 0 : s.fixed_rows < tokens ? 1.5 : 100);
      NothingSaved nothing;
      for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        const Tensor x = r.values({tokens, d}, "x", dtype);
        auto send = [&](std::optional<Fp8Encoding> e) {
          return ExpertSend::forward(r.stream, {.plan = r.plan, .encoding = e}, {x}, nothing)[0];
        };
        const int64_t used = r.plan->offsets.span<int32_t>().back();
        const Tensor rows = send({}).rows(0, used), codes = send(encoding);
        check(codes.columns() == d + 2 * 4, "d codes and a scale for each of two tiles");
        check_same_bits(codes.rows(0, used), pack_rows(r.stream, rows, encoding), "codes of x");
        const Tensor dy = r.values({tokens * chosen, d}, "dy", dtype);
        auto back = [&](std::optional<Fp8Encoding> e) {
          const ExpertReturn::Attributes a{.way = {r.plan, &r.plan->choices}, .encoding = e};
          return ExpertReturn::grad_input(r.stream, a, nothing, {dy})[0].rows(0, used);
        };
        check_same_bits(back(encoding), pack_rows(r.stream, back({}), encoding), "codes of dy");
      }
    });
  }
}

}  // namespace
}  // namespace shoestring

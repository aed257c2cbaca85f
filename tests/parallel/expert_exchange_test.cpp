#include "parallel/expert_exchange.h"

#include <cmath>

#include "parallel/comm/counting.h"
#include "tests/parallel/expert_one_rank.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

const Standing standings[] = {{.ranks = 1},
                              {.ranks = 2},
                              {.ranks = 3},
                              {.ranks = 4},
                              {.ranks = 8},  // one expert a rank, fewer than a token chooses
                              {.ranks = 2, .nodes = 2},
                              {.ranks = 3, .nodes = 3},
                              {.ranks = 4, .nodes = 2},
                              {.ranks = 8, .nodes = 2},
                              {.ranks = 8, .nodes = 4}};

TEST(ExpertExchange, LayerIsThatOfOneRankBitForBit) {
  for (const Standing& s : standings) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f64}) {
      expect_one_rank(with_experts({.dtype = dtype}, s), s);
    }
  }
}

// All to the first experts, to the last rank, each rank to its own or to its neighbour's, and
// experts that nobody wants.
TEST(ExpertExchange, UnevenLoadsChangeNothing) {
  for (const Standing& s : standings) {
    Model model = with_experts({}, s);
    const int64_t here = model.experts / s.ranks, last = model.experts - here;
    const std::function<double(int, int64_t)> biases[] = {
        [](int, int64_t e) { return -10.0 * static_cast<double>(e); },
        [last](int, int64_t e) { return e >= last ? 5.0 : 0.0; },
        [here](int r, int64_t e) { return e / here == r ? 5.0 : 0.0; },
        [here, ranks = s.ranks](int r, int64_t e) { return e / here == (r + 1) % ranks ? 5.0 : 0; },
        [](int r, int64_t e) { return (e + r) % 2 == 0 ? 5.0 : 0.0; }};
    for (const auto& bias : biases) {
      model.bias = bias;
      expect_one_rank(model, s);
    }
  }
}

TEST(ExpertExchange, CapacityDropsTheSameWithExactAndFixedCounts) {
  for (double capacity : {0.5, 1.0, 3.0}) {
    for (Standing s : {Standing{.ranks = 2}, Standing{.ranks = 4}, Standing{.ranks = 4, .nodes = 2},
                       Standing{.ranks = 3}}) {
      const Model model = with_experts({.capacity = capacity}, s);
      expect_one_rank(model, s);
      const double even =
          static_cast<double>(model.tokens() * model.chosen) / static_cast<double>(model.experts);
      s.fixed_rows = static_cast<int64_t>(std::ceil(capacity * even));
      expect_one_rank(model, s);
      s.fixed_rows += 5;
      expect_one_rank(model, s);
    }
  }
}

TEST(ExpertExchange, OtherOrdersOfWorkChangeNothing) {
  for (const Standing& s : {Standing{.ranks = 3}, Standing{.ranks = 4, .nodes = 2}}) {
    const Model model = with_experts({}, s);
    for (int i = 0; i < 4; ++i) {
      Model other = model;
      other.worker = i == 0;  // streams with threads of their own
      other.apart = i == 1;   // input and weight gradients apart
      other.region = i == 2;  // the layer recomputed: its exchange runs again
      if (i == 3) other.recompute = Recompute::swiglu;
      Reference want(model, s.ranks);
      EXPECT_NO_THROW(
          run_ranks(s.ranks, [&](Communicator& world) { check_rank(world, other, s, want, 0); }))
          << i << ", " << s.text();
    }
  }
}

// Sums inside nodes add in another order, but in a fixed one.
TEST(ExpertExchange, SumsInNodesAreCloseAndRepeat) {
  for (Standing s : {Standing{.ranks = 2, .nodes = 2}, Standing{.ranks = 4, .nodes = 2},
                     Standing{.ranks = 8, .nodes = 4}}) {
    s.sum_in_nodes = true;
    expect_one_rank({.dtype = Dtype::f64}, s, 1e-13);
    expect_one_rank({.dtype = Dtype::f32}, s, 1e-6);
    expect_one_rank({.dtype = Dtype::bf16}, s, 2e-2);
    expect_one_rank({.dtype = Dtype::f32, .capacity = 0.7}, s, 1e-6);
    Standing fixed = s;
    fixed.fixed_rows = 6;  // ceil(0.7 * 12 * 3 / 8) = 4
    expect_one_rank({.dtype = Dtype::f32, .capacity = 0.7}, fixed, 1e-6);
    expect_one_rank({.d = 40, .dtype = Dtype::bf16, .recipe = "deepseek_v3", .capacity = 0.7},
                    fixed, 4e-2);
    // FP8 in backward: the same gates times the same slopes travel, the rest is as in bf16.
    expect_one_rank({.d = 40, .dtype = Dtype::bf16, .recipe = "deepseek_v3"}, s, 4e-2);
    std::vector<std::unique_ptr<Layer>> layers(static_cast<size_t>(s.ranks));
    std::vector<Tensor> first(layers.size());  // of the layers' devices
    for (int again = 0; again < 2; ++again) {
      run_ranks(s.ranks, [&](Communicator& world) {
        const auto rank = static_cast<size_t>(world.rank());
        auto layer = std::make_unique<Layer>(Model{}, part_of_rank(s, world.rank()));
        Stream stream = Stream::immediate(layer->device());
        GroupOf g(world, s, Model().experts);
        ExpertExchange exchange(g.group);
        const Tensor y = layer->run(world.rank(), &exchange, stream).y;
        if (again == 1) return check_same_bits(y, first[rank], "y of the second run");
        first[rank] = y;
        layers[rank] = std::move(layer);
      });
    }
  }
}

TEST(ExpertExchange, Fp8IsThatOfOneRankBitForBit) {
  for (const char* recipe : {"deepseek_v3", "mxfp8", "per_tensor", "block_gradients"}) {
    for (const char* scales : {"plain", "power_of_two"}) {
      for (const Standing& s :
           {Standing{.ranks = 2}, Standing{.ranks = 3}, Standing{.ranks = 8},
            Standing{.ranks = 4, .nodes = 2}, Standing{.ranks = 2, .fixed_rows = 40},
            Standing{.ranks = 4, .nodes = 2, .fixed_rows = 14}}) {
        Model model = with_experts({.d = 136, .m = 40, .length = 7}, s);
        model.dtype = Dtype::bf16;
        model.recipe = recipe;
        model.dispatch_scales = scales;
        model.capacity = s.fixed_rows > 0 ? 2 : 0;
        expect_one_rank(model, s);
        if (s.ranks != 2 || s.fixed_rows > 0) continue;
        model.probe = true;  // then the rows travel in bf16
        expect_one_rank(model, s);
        model.probe = false;
        model.region = true;
        expect_one_rank(model, s);
      }
    }
  }
}

// h + 4 h / 128 bytes a row there, 2 h back, forward and backward.
TEST(ExpertExchange, Fp8SendsCodesThereAndBf16Back) {
  Model model{.d = 136, .m = 40, .dtype = Dtype::bf16, .recipe = "deepseek_v3"};
  for (const Standing& s : {Standing{.ranks = 2}, Standing{.ranks = 4, .nodes = 2}}) {
    run_ranks(s.ranks, [&](Communicator& world) {
      const auto traffic = std::make_shared<Traffic>();
      const auto counted = counting(world, traffic);
      Layer layer(model, part_of_rank(s, world.rank()));
      GroupOf g(*counted, s, model.experts);
      ExpertExchange exchange(g.group);
      Stream stream = Stream::immediate(layer.device());
      traffic->reset();
      layer.run(world.rank(), &exchange, stream);
      const ExpertPlan& plan = *exchange.latest();
      const int64_t codes = 136 + 4 * 2, wide = 2 * 136;
      const int64_t rows = bytes_there(plan.tokens, codes) + bytes_back(plan.choices, wide) +
                           bytes_there(plan.choices, codes) + bytes_back(plan.choices, wide);
      const auto before = traffic->total_bytes();
      traffic->reset();
      const Choice c = choices_of(layer.device(), Load::random, world.rank(),
                                  {model.tokens(), model.chosen, model.experts, s.ranks});
      const auto again = plan_of(stream, g.group, c, 0);
      const int64_t of_choices =
          s.nodes > 0 ? bytes_there(ExpertWay{.legs = {plan.choices.legs[0]}, .order = {}}, 4) -
                            bytes_there(ExpertWay{.legs = {again->choices.legs[0]}, .order = {}}, 4)
                      : 0;
      const int64_t counts = traffic->total_bytes() + of_choices;
      check(rows > 0 && before == rows + counts,
            cat("the layer sent ", before, " bytes, formula ", rows, " + ", counts));
    });
  }
}

// Ranks without tokens still serve the others; an exchange of no tokens at all is one, too.
TEST(ExpertExchange, RanksMayHaveNoTokens) {
  for (const Standing& s : {Standing{.ranks = 3}, Standing{.ranks = 2, .nodes = 2},
                            Standing{.ranks = 4, .nodes = 2, .sum_in_nodes = true}}) {
    for (int empty : {0, 1, -1}) {  // -1: all
      run_ranks(s.ranks, [&](Communicator& world) {
        constexpr int64_t experts = 12, chosen = 2, d = 5;
        Device device(DeviceKind::cpu, 0, 1);
        Stream stream = Stream::immediate(device);
        ParamStore store(device, {}, Dtype::f64);
        StoreSource source(store);
        Tape tape(stream, source, Tape::Mode::training);
        const int64_t T = empty < 0 || world.rank() == empty ? 0 : 7;
        const Choice c = choices_of(device, Load::random, world.rank(),
                                    {T, chosen, experts, s.ranks}, Dtype::f64);
        GroupOf g(world, s, experts);
        ExpertExchange exchange(g.group);
        const Value x =
            tape.leaf(normal_tensor(device, {T, d}, Dtype::f64, cat("x ", world.rank())), true);
        const Value gates = tape.leaf(c.gates, true);
        const Routing routing{.ids = Value(c.ids), .gates = gates, .experts = experts};
        const DispatchedTokens sent = exchange.dispatch(tape, x, routing);
        const Value y = exchange.combine(tape, sent.rows, sent, routing);
        check(y.tensor().shape() == Shape({T, d}), "y");
        // Experts that do nothing: y is x times the sum of its gates.
        for (int64_t i = 0; i < T * d; ++i) {
          const double* g2 = c.gates.data<double>() + i / d * chosen;
          const double want = (g2[0] + g2[1]) * x.tensor().data<double>()[i];
          check(std::abs(y.tensor().data<double>()[i] - want) < 1e-12, "sum of gates times x");
        }
        tape.seed(y, normal_tensor(device, {T, d}, Dtype::f64, cat("dy ", world.rank())));
        tape.backward();
        check(tape.take_gradient(x).shape() == Shape({T, d}) &&
                  tape.take_gradient(gates).shape() == Shape({T, chosen}),
              "gradients");
      });
    }
  }
}

TEST(ExpertExchange, RefusesLayersOfOtherExperts) {
  EXPECT_THROW(run_ranks(2,
                         [](Communicator& world) {
                           Layer layer({}, {.rank = world.rank(), .ranks = 2});
                           GroupOf g(world, {.ranks = 2}, 16);
                           ExpertExchange exchange(g.group);
                           Stream stream = Stream::immediate(layer.device());
                           layer.run(world.rank(), &exchange, stream);
                         }),
               Error);
  EXPECT_THROW(
      run_ranks(
          2, [](Communicator& world) { ExpertExchange exchange({.experts = 3, .ranks = &world}); }),
      Error);
}

TEST(ExpertExchange, RanksHoldConsecutiveExperts) {
  const ParamInfo gate_up{.name = "layers.3.moe.experts.gate_up.weight",
                          .shape = {8 * 20, 12},
                          .parts = std::vector<int64_t>(16, 10)};
  const ParamInfo down{.name = "layers.3.moe.experts.down.weight",
                       .shape = {8 * 12, 10},
                       .parts = std::vector<int64_t>(8, 12)};
  const ParamInfo router{.name = "layers.3.moe.router.weight", .shape = {8, 12}};
  EXPECT_TRUE(is_of_experts(gate_up) && is_of_experts(down));
  EXPECT_FALSE(is_of_experts(router));
  const auto first_and_count = [](const ParamInfo& p) {
    EXPECT_EQ(p.shard.rows.size(), 1u);
    EXPECT_EQ(p.shape[0], p.shard.rows[0].count);
    return std::pair(p.shard.rows[0].global, p.shard.rows[0].count);
  };
  const ParamInfo second = part_of_experts(gate_up, 8, {.rank = 1, .ranks = 4});
  EXPECT_EQ(first_and_count(second), std::pair(int64_t{40}, int64_t{40}));
  EXPECT_EQ(second.parts, std::vector<int64_t>(4, 10));
  EXPECT_EQ(first_and_count(part_of_experts(down, 8, {.rank = 3, .ranks = 4})),
            std::pair(int64_t{72}, int64_t{24}));
  EXPECT_FALSE(part_of_experts(down, 8, {}).shard.cut());
  const auto part = [](int rank, int ranks, int slice = 0, int slices = 1) {
    return ExpertPart{.rank = rank, .ranks = ranks, .slice = slice, .slices = slices};
  };
  EXPECT_THROW(part_of_experts(down, 8, part(0, 3)), Error);
  EXPECT_THROW(part_of_experts(down, 7, part(0, 1)), Error);
  EXPECT_THROW(part_of_experts(down, 8, part(4, 4)), Error);
  EXPECT_THROW(part_of_experts(router, 8, part(0, 2)), Error);
  EXPECT_THROW(part_of_experts(down, 8, part(0, 1, 0, 4)), Error);
  EXPECT_THROW(part_of_experts(gate_up, 8, part(0, 1, 0, 3)), Error);
  EXPECT_THROW(part_of_experts(gate_up, 8, part(0, 1, 2, 2)), Error);
}

const Standing sliced[] = {{.ranks = 1, .slices = 2},
                           {.ranks = 1, .slices = 5},
                           {.ranks = 2, .slices = 2},
                           {.ranks = 4, .slices = 2},
                           {.ranks = 4, .nodes = 2, .slices = 2},
                           {.ranks = 2, .nodes = 2, .slices = 5},
                           {.ranks = 4, .nodes = 2, .sum_in_nodes = true, .slices = 2}};

// Parts of outputs and of the rows' gradients are summed: equal to rounding, whoever has tokens.
TEST(ExpertExchange, SlicesAddUpToOneRank) {
  for (const Standing& s : sliced) {
    expect_one_rank({.dtype = Dtype::f64}, s, 1e-13);
    expect_one_rank({.dtype = Dtype::f32}, s, 1e-6);
    expect_one_rank({.dtype = Dtype::bf16}, s, 2e-2);
    Model uneven{.dtype = Dtype::f64};
    uneven.bias = [](int r, int64_t e) { return (e + r) % 2 == 0 ? 5.0 : 0.0; };
    expect_one_rank(uneven, s, 1e-13);
    uneven.bias = [](int, int64_t e) { return -10.0 * static_cast<double>(e); };
    expect_one_rank(uneven, s, 1e-13);
  }
}

TEST(ExpertExchange, SlicesDropWhatOneRankDrops) {
  for (Standing s : {Standing{.ranks = 1, .slices = 2}, Standing{.ranks = 4, .slices = 2},
                     Standing{.ranks = 2, .nodes = 2, .slices = 5}}) {
    for (double capacity : {0.5, 3.0}) {
      const Model model{.dtype = Dtype::f64, .capacity = capacity};
      expect_one_rank(model, s, 1e-13);
      const double even =
          static_cast<double>(model.tokens() * model.chosen) / static_cast<double>(model.experts);
      Standing fixed = s;
      fixed.fixed_rows = static_cast<int64_t>(std::ceil(capacity * even)) + 2;
      expect_one_rank(model, fixed, 1e-13);
    }
  }
}

TEST(ExpertExchange, OtherOrdersOfWorkChangeNoSlices) {
  const Standing s{.ranks = 2, .slices = 2};
  for (int i = 0; i < 4; ++i) {
    Model model{.dtype = Dtype::f64};
    model.worker = i == 0, model.apart = i == 1, model.region = i == 2;
    if (i == 3) model.recompute = Recompute::swiglu;
    expect_one_rank(model, s, 1e-13);
  }
}

// Tiles of 128 columns are those of the whole where slices end at a tile. Elsewhere, and with one
// scale for all, codes are others: what two roundings to two bits (E5M2) differ by.
TEST(ExpertExchange, SlicesInFp8) {
  for (const Standing& s :
       {Standing{.ranks = 2, .slices = 2}, Standing{.ranks = 2, .fixed_rows = 60, .slices = 2},
        Standing{.ranks = 4, .nodes = 2, .slices = 2},
        Standing{.ranks = 4, .nodes = 2, .fixed_rows = 14, .slices = 2}}) {
    for (const char* recipe : {"deepseek_v3", "per_tensor", "mxfp8"}) {
      Model model{.d = 136, .m = 256, .length = 7, .dtype = Dtype::bf16, .recipe = recipe};
      model.capacity = s.fixed_rows > 0 ? 2 : 0;
      expect_one_rank(model, s, model.recipe == "per_tensor" ? 0.15 : 1e-2);
      model.m = 40;
      expect_one_rank(model, s, 0.15);
      model.probe = true;
      expect_one_rank(model, s, 0.15);
    }
  }
}

// Slice 1 of 2 of experts 4 and 5: rows 5..9 of gate and of up, and columns 5..9 of down.
TEST(ExpertExchange, SlicesAreColumnsOfAnExpert) {
  const ExpertPart part{.rank = 2, .ranks = 4, .slice = 1, .slices = 2};
  const ParamInfo gate_up = part_of_experts({.name = "layers.3.moe.experts.gate_up.weight",
                                             .shape = {8 * 20, 12},
                                             .parts = std::vector<int64_t>(16, 10)},
                                            8, part);
  EXPECT_EQ(gate_up.shape, (Shape{20, 12}));
  EXPECT_EQ(gate_up.shard.whole, (Shape{160, 12}));
  EXPECT_EQ(gate_up.parts, std::vector<int64_t>(4, 5));
  ASSERT_EQ(gate_up.shard.rows.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(gate_up.shard.rows[i].local, static_cast<int64_t>(5 * i));
    EXPECT_EQ(gate_up.shard.rows[i].global, static_cast<int64_t>(80 + 10 * i + 5));
    EXPECT_EQ(gate_up.shard.rows[i].count, 5);
  }
  const ParamInfo down = part_of_experts({.name = "layers.3.moe.experts.down.weight",
                                          .shape = {8 * 12, 10},
                                          .parts = std::vector<int64_t>(8, 12)},
                                         8, part);
  EXPECT_EQ(down.shape, (Shape{24, 5}));
  EXPECT_EQ(down.parts, std::vector<int64_t>(2, 12));
  EXPECT_EQ(down.shard.first_column, 5);
  ASSERT_EQ(down.shard.rows.size(), 1u);
  EXPECT_EQ(down.shard.rows[0].global, 48);
}

}  // namespace
}  // namespace shoestring

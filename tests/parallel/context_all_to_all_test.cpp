#include "parallel/context_all_to_all.h"

#include "core/text.h"
#include "parallel/comm/counting.h"
#include "tests/core/ops/attention_oracle.h"
#include "tests/parallel/context_case.h"

namespace shoestring {
namespace {

std::unique_ptr<AttentionCore> make_all_to_all(Communicator& ranks, Device&) {
  return std::make_unique<AllToAllAttention>(ranks);
}

AttentionCase heads_case(int64_t q_heads, int64_t kv_heads, int64_t window = 0) {
  return attention::make_case(cat(q_heads, " and ", kv_heads, " heads"),
                              {.batch = 2,
                               .length = 91,
                               .q_heads = q_heads,
                               .kv_heads = kv_heads,
                               .head_dim = 24,
                               .v_head_dim = 16,
                               .window = window},
                              20);
}

struct HeadsOnRanks {
  AttentionCase attention;
  std::vector<int> ranks;
};
// Key heads more than, as many as and fewer than ranks.
std::vector<HeadsOnRanks> cases() {
  AttentionCase latent = heads_case(8, 8);
  latent.attributes.head_dim = 192;
  latent.attributes.v_head_dim = 128;
  return {{heads_case(8, 8), {1, 2, 4, 8}}, {heads_case(8, 2, 30), {1, 2, 4, 8}},
          {heads_case(8, 1), {2, 8}},       {heads_case(6, 3), {3}},
          {heads_case(6, 6, 7), {3, 6}},    {heads_case(6, 1), {3, 6}},
          {heads_case(16, 4), {8}},         {latent, {2, 8}}};
}

template <class F>
void for_cases_and_ranks(F&& f) {
  for (const HeadsOnRanks& c : cases()) {
    for (int ranks : c.ranks) {
      SCOPED_TRACE(cat(c.attention.name, " on ", ranks, " ranks"));
      f(padded_case(c.attention, 2 * ranks), ranks);
    }
  }
}

// Each row of scores is made by the same kernels from the same numbers, so nothing but the sum over
// copies of a key head may differ.
TEST(AllToAllAttention, F32EqualsOneRankToTheBit) {
  for_cases_and_ranks([](const AttentionCase& c, int ranks) {
    const AttentionValues<float> x(c.attributes);
    const auto want = attention::run_attention(c, x);
    const auto got = run_over_ranks(c, x, ranks, make_all_to_all);
    attention::expect_same_bits("o", got.o, want.o);
    attention::expect_same_bits("dq", got.dq, want.dq);
    if (c.attributes.kv_heads >= ranks) {
      attention::expect_same_bits("dk", got.dk, want.dk);
      attention::expect_same_bits("dv", got.dv, want.dv);
    } else {
      expect_near(got, want, x, 1e-6);
    }
  });
}

TEST(AllToAllAttention, F64EqualsOneRank) {
  for_cases_and_ranks([](const AttentionCase& c, int ranks) {
    const AttentionValues<double> x(c.attributes);
    const auto got = run_over_ranks(c, x, ranks, make_all_to_all);
    expect_near(got, attention::run_attention(c, x), x, 1e-12);
  });
}

TEST(AllToAllAttention, Bf16StaysWithinTheErrorModel) {
  for_cases_and_ranks([](const AttentionCase& c, int ranks) {
    const AttentionValues<BFloat16> x(c.attributes);
    const auto got = run_over_ranks(c, x, ranks, make_all_to_all);
    const attention::AttentionOracle want(c, x);
    const attention::AttentionBounds bounds(c, want, 0x1p-8);
    attention::expect_within("o", got.o, want.o, bounds.o);
    attention::expect_within("dq", got.dq, want.dq, bounds.dq);
    attention::expect_within("dk", got.dk, want.dk, bounds.dk);
    attention::expect_within("dv", got.dv, want.dv, bounds.dv);
  });
}

TEST(AllToAllAttention, OneTokenWithAGradient) {
  const AttentionCase c = padded_case(heads_case(8, 2), 8);
  AttentionValues<float> x(c.attributes);
  for (size_t i = 0; i < x.dy.size(); ++i) {
    if (i / (8 * 16) != 60) x.dy[i] = 0;
  }
  expect_near(run_over_ranks(c, x, 4, make_all_to_all), attention::run_attention(c, x), x, 1e-6);
}

TEST(AllToAllAttention, RepeatsToTheBit) {
  const AttentionCase c = padded_case(heads_case(8, 2), 16);
  const AttentionValues<BFloat16> x(c.attributes);
  const auto want = run_over_ranks(c, x, 8, make_all_to_all);
  for (int i = 0; i < 20; ++i) {
    attention::expect_same_bits(run_over_ranks(c, x, 8, make_all_to_all, i % 2 == 1), want);
  }
}

TEST(AllToAllAttention, SendsWhatTheFormulaSays) {
  for (const HeadsOnRanks& heads : cases()) {
    for (int ranks : heads.ranks) {
      const AttentionCase c = padded_case(heads.attention, 2 * ranks);
      const Attention::Attributes& a = c.attributes;
      SCOPED_TRACE(cat(c.name, " on ", ranks, " ranks"));
      const AttentionValues<BFloat16> x(a);
      run_ranks(ranks, [&](Communicator& world) {
        const auto traffic = std::make_shared<Traffic>();
        const auto counted = counting(world, traffic);
        ContextRank<BFloat16> rank(c, x, world);
        AllToAllAttention core(*counted);
        const int64_t keys = std::max<int64_t>(a.kv_heads, ranks);
        const int64_t each_way = 2 * a.batch * a.length * (a.q_heads + keys) *
                                 (a.head_dim + a.v_head_dim) * (ranks - 1) / (ranks * ranks);
        rank.forward(core);
        EXPECT_EQ(traffic->bytes(Call::Op::all_to_all), each_way);
        rank.backward();
        EXPECT_EQ(traffic->bytes(Call::Op::all_to_all), 2 * each_way);
        rank.forward(core);  // the next layer of the same micro-batch
        EXPECT_EQ(traffic->bytes(Call::Op::all_gather),
                  4 * a.batch * a.length * (ranks - 1) / ranks);
        EXPECT_EQ(traffic->total_bytes(), 3 * each_way + traffic->bytes(Call::Op::all_gather));
      });
    }
  }
}

TEST(AllToAllAttention, MemoryStaysWithinTheHeader) {
  const AttentionCase c = attention::make_case(
      "long",
      {.batch = 1, .length = 4096, .q_heads = 8, .kv_heads = 2, .head_dim = 32, .v_head_dim = 16});
  const Attention::Attributes& a = c.attributes;
  const AttentionValues<BFloat16> x(a);
  run_ranks(8, [&](Communicator& world) {
    ContextRank<BFloat16> rank(c, x, world);
    AllToAllAttention core(world);
    const Ledger& ledger = rank.device().ledger();
    const int64_t operands = ledger.current(MemoryKind::activations);
    rank.forward(core);
    const int64_t tokens = a.length / 8, pair = a.head_dim + a.v_head_dim;
    const int64_t on_the_way = 2 * 2 * tokens * (a.q_heads * a.head_dim + 8 * pair);
    EXPECT_EQ(ledger.peak(MemoryKind::communication), on_the_way);
    const int64_t kept = 2 * tokens * (a.q_heads + 8) * pair + 4 * tokens * a.q_heads;
    const int64_t result = 2 * tokens * a.q_heads * a.v_head_dim;
    EXPECT_EQ(ledger.current(MemoryKind::activations), operands + kept + result);
    rank.backward();
    EXPECT_EQ(ledger.peak(MemoryKind::communication), on_the_way);
    EXPECT_EQ(ledger.current(MemoryKind::communication), 0);
  });
}

Tensor random_tensor(Device& device, Shape shape, std::string_view name) {
  const int64_t n = shape.elements();
  return attention::tensor_of(device, std::move(shape), attention::random_values<double>(name, n));
}

// There and back is the identity; <A x, y> = <x, A' y> over all ranks, with 2 copies of key heads.
TEST(HeadsForTokens, IsUndoneByTokensForHeadsAndHasItsAdjoint) {
  std::vector<double> forward(4), backward(4);
  run_ranks(4, [&](Communicator& world) {
    Device device;
    Stream stream = Stream::immediate(device);
    const HeadExchange common{.ranks = &world, .batch = 2, .length = 6};
    const HeadsForTokens::Attributes a{common,
                                       {.heads = 8, .width = 3},
                                       {.heads = 2, .width = 5, .copies = 2},
                                       {.heads = 2, .width = 7, .copies = 2}};
    const auto named = [&](std::string_view name) { return cat(name, world.rank()); };
    const Tensors<3> x{random_tensor(device, {12, 24}, named("q")),
                       random_tensor(device, {12, 10}, named("k")),
                       random_tensor(device, {12, 14}, named("v"))};
    NothingSaved saved;
    const Tensors<3> y = HeadsForTokens::forward(stream, a, x, saved);
    const Tensor back =
        TokensForHeads::forward(stream, {common, {.heads = 8, .width = 3}}, {y[0]}, saved)[0];
    attention::expect_same_bits("there and back", attention::copy_of<double>(back),
                                attention::copy_of<double>(x[0]));
    const Tensors<3> dy{random_tensor(device, {48, 6}, named("dq")),
                        random_tensor(device, {48, 5}, named("dk")),
                        random_tensor(device, {48, 7}, named("dv"))};
    const Tensors<3> dx = HeadsForTokens::grad_input(stream, a, saved, dy);
    const auto r = static_cast<size_t>(world.rank());
    for (size_t i = 0; i < 3; ++i) {
      forward[r] += dot(attention::copy_of<double>(y[i]), attention::copy_of<double>(dy[i]));
      backward[r] += dot(attention::copy_of<double>(x[i]), attention::copy_of<double>(dx[i]));
    }
  });
  double sum = 0, adjoint = 0;
  for (size_t r = 0; r < 4; ++r) sum += forward[r], adjoint += backward[r];
  EXPECT_NEAR(sum, adjoint, 1e-10);
  EXPECT_NE(sum, 0);
}

TEST(AllToAllAttention, RefusesHeadsThatDoNotSuitItsRanks) {
  const auto refused = [](int64_t q_heads, int64_t kv_heads, int ranks) {
    const AttentionCase c = padded_case(heads_case(q_heads, kv_heads), 2 * ranks);
    const AttentionValues<float> x(c.attributes);
    try {
      run_over_ranks(c, x, ranks, make_all_to_all);
    } catch (const Error& e) {
      return std::string(e.what()).find("or the ring") != std::string::npos;
    }
    return false;
  };
  EXPECT_TRUE(refused(6, 2, 4));
  EXPECT_TRUE(refused(12, 6, 4));
  EXPECT_FALSE(refused(8, 4, 4));
}

}  // namespace
}  // namespace shoestring

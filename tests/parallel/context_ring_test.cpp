#include "parallel/context_ring.h"

#include "core/text.h"
#include "parallel/comm/counting.h"
#include "parallel/comm/throttled.h"
#include "tests/core/ops/attention_oracle.h"
#include "tests/parallel/context_case.h"

namespace shoestring {
namespace {

std::unique_ptr<AttentionCore> make_ring(Communicator& ranks, Device& device) {
  return std::make_unique<RingAttention>(ranks, device);
}

// Every attention problem of the local op, on 1, 2, 3, 4 and 8 ranks.
template <class F>
void for_cases_and_ranks(F&& f) {
  for (const AttentionCase& c : attention::attention_cases()) {
    for (int ranks : {1, 2, 3, 4, 8}) {
      SCOPED_TRACE(cat(c.name, " on ", ranks, " ranks"));
      f(padded_case(c, 2 * ranks), ranks);
    }
  }
}

TEST(RingAttention, F64EqualsOneRank) {
  for_cases_and_ranks([](const AttentionCase& c, int ranks) {
    const AttentionValues<double> x(c.attributes);
    expect_near(run_over_ranks(c, x, ranks, make_ring), attention::run_attention(c, x), x, 1e-12);
  });
}

TEST(RingAttention, F32EqualsOneRank) {
  for_cases_and_ranks([](const AttentionCase& c, int ranks) {
    const AttentionValues<float> x(c.attributes);
    // Where scores are far apart, log-sum-exps near 60 are stored with a last place of 4e-6.
    const double tolerance = c.name == "sharp" ? 5e-6 : 1e-6;
    const auto want = attention::run_attention(c, x);
    expect_near(run_over_ranks(c, x, ranks, make_ring), want, x, tolerance);
  });
}

template <class T>
void expect_error_model(double rounding) {
  for_cases_and_ranks([&](const AttentionCase& c, int ranks) {
    const AttentionValues<T> x(c.attributes);
    const auto got = run_over_ranks(c, x, ranks, make_ring);
    const attention::AttentionOracle want(c, x);
    const attention::AttentionBounds bounds(c, want, rounding);
    attention::expect_within("o", got.o, want.o, bounds.o);
    attention::expect_within("dq", got.dq, want.dq, bounds.dq);
    attention::expect_within("dk", got.dk, want.dk, bounds.dk);
    attention::expect_within("dv", got.dv, want.dv, bounds.dv);
  });
}

TEST(RingAttention, F32StaysWithinTheErrorModel) { expect_error_model<float>(0x1p-24); }
TEST(RingAttention, Bf16StaysWithinTheErrorModel) { expect_error_model<BFloat16>(0x1p-8); }

AttentionCase middle_case() {
  return attention::make_case("middle",
                              {.batch = 2,
                               .length = 704,
                               .q_heads = 4,
                               .kv_heads = 2,
                               .head_dim = 48,
                               .v_head_dim = 32,
                               .window = 300},
                              150);
}

// Keys of a row's real tokens are not lost to the columns that fill it up.
TEST(RingAttention, RowsOfOddLengthAreThoseOfTheirRealTokens) {
  AttentionCase real = middle_case();
  real.attributes.length = 698;
  real.first_key.clear();
  for (int64_t b = 0; b < 2; ++b) {
    for (int32_t t = 0; t < 698; ++t) real.first_key.push_back(t < 333 ? 0 : 333);
  }
  const AttentionCase c = padded_case(real, 8);
  ASSERT_EQ(c.attributes.length, 704);
  const AttentionValues<float> x(c.attributes);
  const auto got = run_over_ranks(c, x, 4, make_ring);
  AttentionValues<float> part(real.attributes);
  const auto cut = [](const std::vector<float>& from, std::vector<float>& to) {
    const size_t columns = from.size() / (2 * 704);
    for (size_t b = 0; b < 2; ++b) {
      const auto row = from.begin() + static_cast<ptrdiff_t>(b * 704 * columns);
      std::copy_n(row, 698 * columns, to.begin() + static_cast<ptrdiff_t>(b * 698 * columns));
    }
  };
  cut(x.q, part.q), cut(x.k, part.k), cut(x.v, part.v), cut(x.dy, part.dy);
  const auto want = attention::run_attention(real, part);
  AttentionResult<float> real_part = want;
  cut(got.o, real_part.o), cut(got.dq, real_part.dq), cut(got.dk, real_part.dk);
  cut(got.dv, real_part.dv);
  expect_near(real_part, want, part, 1e-6);
}

TEST(RingAttention, OneTokenWithAGradient) {
  const AttentionCase c = middle_case();
  for (int64_t token : {0, 100, 351, 352, 703}) {
    AttentionValues<float> x(c.attributes);
    const int64_t columns = 4 * 32;
    for (size_t i = 0; i < x.dy.size(); ++i) {
      if (static_cast<int64_t>(i) / columns != token) x.dy[i] = 0;
    }
    for (int ranks : {2, 4}) {
      expect_near(run_over_ranks(c, x, ranks, make_ring), attention::run_attention(c, x), x, 1e-6);
    }
  }
}

// o is linear in v: <o(v), dy> = <v, dv>.
TEST(RingAttention, GradientOfValuesIsTheAdjoint) {
  const AttentionCase c = padded_case(middle_case(), 16);
  const AttentionValues<double> x(c.attributes);
  const auto got = run_over_ranks(c, x, 8, make_ring);
  const double forward = dot(got.o, x.dy), backward = dot(x.v, got.dv);
  EXPECT_NEAR(forward, backward, 1e-12 * norm_of(got.o) * norm_of(x.dy));
}

// On slow links, with the tape's stream on a thread of its own: nothing is read before it is there,
// and nothing is overwritten before it was read.
TEST(RingAttention, RepeatsToTheBitWhateverTheTiming) {
  const AttentionCase c = middle_case();
  const AttentionValues<BFloat16> x(c.attributes);
  const auto want = run_over_ranks(c, x, 4, make_ring);
  for (int i = 0; i < 20; ++i) {
    const bool slow = i % 2 == 1;
    std::vector<std::unique_ptr<Communicator>> links(4);
    const auto make = [&](Communicator& ranks, Device& device) -> std::unique_ptr<AttentionCore> {
      if (!slow) return make_ring(ranks, device);
      auto& link = links[static_cast<size_t>(ranks.rank())];
      link = throttled(ranks, {.bytes_per_second = 1e9 / (1 + ranks.rank()),
                               .latency_seconds = 3e-4 * ranks.rank()});
      return make_ring(*link, device);
    };
    attention::expect_same_bits(run_over_ranks(c, x, 4, make, i % 4 >= 2), want);
  }
}

TEST(RingAttention, NanOfAKeyReachesExactlyTheTokensThatSeeIt) {
  const AttentionCase c = attention::make_case(
      "nan",
      {.batch = 1, .length = 96, .q_heads = 2, .kv_heads = 1, .head_dim = 32, .v_head_dim = 32});
  AttentionValues<float> x(c.attributes);
  x.k[70 * 32] = std::numeric_limits<float>::quiet_NaN();
  const auto got = run_over_ranks(c, x, 3, make_ring);
  for (int64_t t = 0; t < 96; ++t) {
    EXPECT_EQ(std::isnan(got.o[static_cast<size_t>(t) * 64]), t >= 70) << "token " << t;
  }
}

// The formulas of the header, to the byte, in exchanges alone.
template <class T>
void expect_bytes(int ranks) {
  const AttentionCase c = attention::make_case(
      "bytes",
      {.batch = 2, .length = 96, .q_heads = 6, .kv_heads = 3, .head_dim = 24, .v_head_dim = 16});
  const AttentionValues<T> x(c.attributes);
  const int64_t elements = 2 * 96 * 3 * (24 + 16), width = sizeof(T);
  const int64_t sum = std::max<int64_t>(4, width);
  run_ranks(ranks, [&](Communicator& world) {
    const auto traffic = std::make_shared<Traffic>();
    const auto counted = counting(world, traffic);
    ContextRank<T> rank(c, x, world);
    RingAttention ring(*counted, rank.device());
    rank.forward(ring);
    const int64_t forward = width * elements * (ranks - 1) / ranks;
    EXPECT_EQ(traffic->total_bytes(), forward);
    EXPECT_EQ(traffic->bytes(Call::Op::exchange), forward);
    rank.backward();
    EXPECT_EQ(traffic->total_bytes() - forward, forward + (ranks > 1 ? sum * elements : 0));
    EXPECT_EQ(traffic->bytes(Call::Op::exchange), traffic->total_bytes());
  });
}

TEST(RingAttention, SendsWhatTheFormulaSays) {
  for (int ranks : {1, 2, 3, 4, 8}) {
    SCOPED_TRACE(ranks);
    expect_bytes<float>(ranks);
    expect_bytes<BFloat16>(ranks);
    expect_bytes<double>(ranks);
  }
}

// What the header allows beyond operands and results, by kind.
struct Allowed {
  int64_t communication_forward, communication_backward, workspace;
};
Allowed allowed(const Attention::Attributes& a, int64_t ranks, int64_t width) {
  const int64_t tokens = a.batch * a.length / ranks;
  const auto up = [](int64_t n) { return (n + 15) / 16 * 16; };
  const int64_t hd = up(a.head_dim), hv = up(a.v_head_dim), pair = a.head_dim + a.v_head_dim;
  const int64_t keys = 2 * width * tokens * a.kv_heads * pair;
  const int64_t sums = 3 * 4 * tokens * a.kv_heads * pair;
  const int64_t wide = std::max(a.head_dim, a.v_head_dim) * 4 * tokens * a.q_heads;
  const int64_t kernels = 4 * (tokens / a.batch + 64) * (4 * hd + 2 * hv) +
                          4 * (a.q_heads / a.kv_heads + 3) * 128 * (4 * hd + 4 * hv + 128);
  return {keys, keys + sums, wide + 8 * tokens + kernels};
}

TEST(RingAttention, LongRowsStayWithinTheMemoryOfTheHeader) {
  const AttentionCase c = attention::make_case(
      "long",
      {.batch = 1, .length = 8192, .q_heads = 4, .kv_heads = 2, .head_dim = 32, .v_head_dim = 16},
      3000);
  const Attention::Attributes& a = c.attributes;
  const AttentionValues<BFloat16> x(a);
  constexpr int ranks = 8;
  const Allowed most = allowed(a, ranks, 2);
  run_ranks(ranks, [&](Communicator& world) {
    ContextRank<BFloat16> rank(c, x, world);
    RingAttention ring(world, rank.device());
    const Ledger& ledger = rank.device().ledger();
    const int64_t before = ledger.current(MemoryKind::activations);
    rank.forward(ring);
    EXPECT_EQ(ledger.peak(MemoryKind::communication), most.communication_forward);
    const int64_t tokens = a.batch * a.length / ranks;
    const int64_t kept = tokens * a.q_heads * (2 * a.v_head_dim + 4);
    EXPECT_EQ(ledger.peak(MemoryKind::activations), before + kept);
    rank.backward();
    EXPECT_EQ(ledger.peak(MemoryKind::communication), most.communication_backward);
    EXPECT_EQ(ledger.current(MemoryKind::communication), 0);
    EXPECT_LE(ledger.peak(MemoryKind::workspace), most.workspace);
    EXPECT_EQ(ledger.current(MemoryKind::workspace), 0);
  });
}

TEST(RingAttention, RefusesRowsThatDoNotSuitItsRanks) {
  const AttentionCase c = attention::make_case(
      "odd",
      {.batch = 1, .length = 8, .q_heads = 1, .kv_heads = 1, .head_dim = 8, .v_head_dim = 8});
  const AttentionValues<float> x(c.attributes);
  EXPECT_THROW(run_over_ranks(c, x, 3, make_ring), Error);
}

}  // namespace
}  // namespace shoestring

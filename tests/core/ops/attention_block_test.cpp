#include "core/ops/attention_block.h"

#include <limits>

#include "core/check.h"
#include "tests/core/ops/attention_oracle.h"

namespace shoestring::attention {
namespace {

// Query tokens and key tokens of a row, as runs of columns, ascending.
struct Columns {
  std::vector<int64_t> all;
  int64_t count_before(int64_t column) const {
    return std::lower_bound(all.begin(), all.end(), column) - all.begin();
  }
};
Columns columns_of(const std::vector<std::pair<int64_t, int64_t>>& runs) {
  Columns c;
  for (const auto& [begin, end] : runs) {
    for (int64_t i = begin; i < end; ++i) c.all.push_back(i);
  }
  return c;
}

template <class T>
Tensor pick(Device& device, const std::vector<T>& whole, int64_t batch, int64_t length,
            const Columns& columns) {
  const auto width = static_cast<int64_t>(whole.size()) / (batch * length);
  std::vector<T> part;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t column : columns.all) {
      const auto row = whole.begin() + (b * length + column) * width;
      part.insert(part.end(), row, row + width);
    }
  }
  const auto rows = batch * static_cast<int64_t>(columns.all.size());
  return tensor_of(device, {rows, width}, part);
}

template <class T>
void put(const Tensor& part, std::vector<T>& whole, const AttentionCase& c,
         const Columns& columns) {
  const T* from = part.data<T>();
  for (int64_t b = 0; b < c.attributes.batch; ++b) {
    for (int64_t column : columns.all) {
      const int64_t at = (b * c.attributes.length + column) * part.columns();
      std::copy_n(from, part.columns(), whole.begin() + at);
      from += part.columns();
    }
  }
}

// A problem whose tokens are dealt out to sets of columns, every pair of which is a block.
template <class T>
class Blocks {
 public:
  using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
  Blocks(const AttentionCase& c, const AttentionValues<T>& x, std::vector<Columns> sets,
         int threads)
      : case_(c), x_(x), sets_(std::move(sets)), device_(DeviceKind::cpu, 0, threads) {}

  AttentionResult<Sum> run() {
    AttentionResult<Sum> result;
    result.o.resize(x_.dy.size());
    result.dq.resize(x_.q.size());
    result.dk.resize(x_.k.size());
    result.dv.resize(x_.v.size());
    for (const Columns& queries : sets_) run_queries(queries, result);
    for (size_t i = 0; i < sets_.size(); ++i) {
      put(dk_[i], result.dk, case_, sets_[i]);
      put(dv_[i], result.dv, case_, sets_[i]);
    }
    return result;
  }

 private:
  AttentionBlock block(const Columns& queries, const Columns& keys) const {
    const Attention::Attributes& a = case_.attributes;
    return {.batch = a.batch,
            .queries = static_cast<int64_t>(queries.all.size()),
            .keys = static_cast<int64_t>(keys.all.size()),
            .q_heads = a.q_heads,
            .kv_heads = a.kv_heads,
            .head_dim = a.head_dim,
            .v_head_dim = a.v_head_dim,
            .scale = a.scale};
  }
  BlockOperands operands(const Columns& queries, const Columns& keys) {
    const Attention::Attributes& a = case_.attributes;
    std::vector<int32_t> low, high;
    for (int64_t b = 0; b < a.batch; ++b) {
      for (int64_t t : queries.all) {
        int64_t first = case_.first_key[static_cast<size_t>(b * a.length + t)];
        if (a.window > 0) first = std::max(first, t - a.window + 1);
        low.push_back(static_cast<int32_t>(keys.count_before(first)));
        high.push_back(static_cast<int32_t>(keys.count_before(t + 1)));
      }
    }
    const Shape shape{a.batch, static_cast<int64_t>(queries.all.size())};
    return {.q = pick(device_, x_.q, a.batch, a.length, queries),
            .k = pick(device_, x_.k, a.batch, a.length, keys),
            .v = pick(device_, x_.v, a.batch, a.length, keys),
            .low = tensor_of(device_, shape, low),
            .high = tensor_of(device_, shape, high)};
  }
  void run_queries(const Columns& queries, AttentionResult<Sum>& result) {
    const AttentionBlock any = block(queries, queries);
    const Tensor o = Tensor::zeros(device_, any.o_shape(), dtype_of<Sum>);
    const Tensor log_sum(device_, any.log_sum_exp_shape(), dtype_of<Sum>);
    std::fill_n(log_sum.data<Sum>(), log_sum.elements(), -std::numeric_limits<Sum>::infinity());
    for (const Columns& keys : sets_) {
      merge_attention_block(stream_, block(queries, keys), operands(queries, keys), o, log_sum);
    }
    put(o, result.o, case_, queries);
    Tensor rounded(device_, o.shape(), dtype_of<T>);
    for (int64_t i = 0; i < o.elements(); ++i) {
      rounded.data<T>()[i] = static_cast<T>(o.data<Sum>()[i]);
    }
    const Attention::Attributes& a = case_.attributes;
    const Tensor dq = Tensor::zeros(device_, any.q_shape(), dtype_of<Sum>);
    for (size_t i = 0; i < sets_.size(); ++i) {
      const AttentionBlock b = block(queries, sets_[i]);
      if (dk_.size() <= i) {
        dk_.push_back(Tensor::zeros(device_, b.k_shape(), dtype_of<Sum>));
        dv_.push_back(Tensor::zeros(device_, b.v_shape(), dtype_of<Sum>));
      }
      add_attention_block_gradients(stream_, b, operands(queries, sets_[i]),
                                    {.o = rounded,
                                     .dy = pick(device_, x_.dy, a.batch, a.length, queries),
                                     .log_sum_exp = log_sum,
                                     .dq = dq,
                                     .dk = dk_[i],
                                     .dv = dv_[i]});
    }
    put(dq, result.dq, case_, queries);
  }

  const AttentionCase& case_;
  const AttentionValues<T>& x_;
  std::vector<Columns> sets_;
  Device device_;
  Stream stream_ = Stream::immediate(device_);
  std::vector<Tensor> dk_, dv_;
};

// Two sets of two runs each, of uneven lengths; short problems go whole.
std::vector<Columns> two_sets(int64_t length) {
  if (length < 8) return {columns_of({{0, length}})};
  const int64_t a = length / 5, b = length / 2, c = length - 3;
  return {columns_of({{0, a}, {b, c}}), columns_of({{a, b}, {c, length}})};
}

template <class T>
void expect_blocks(double rounding) {
  for (const AttentionCase& c : attention_cases()) {
    SCOPED_TRACE(c.name);
    const AttentionValues<T> x(c.attributes);
    const auto got = Blocks<T>(c, x, two_sets(c.attributes.length), 2).run();
    const AttentionOracle want(c, x);
    const AttentionBounds bounds(c, want, rounding);
    expect_within("o", got.o, want.o, bounds.o);
    expect_within("dq", got.dq, want.dq, bounds.dq);
    expect_within("dk", got.dk, want.dk, bounds.dk);
    expect_within("dv", got.dv, want.dv, bounds.dv);
  }
}

TEST(AttentionBlock, F32StaysWithinTheErrorModel) { expect_blocks<float>(0x1p-24); }
TEST(AttentionBlock, Bf16StaysWithinTheErrorModel) { expect_blocks<BFloat16>(0x1p-8); }

TEST(AttentionBlock, F64EqualsOneSoftmax) {
  for (const AttentionCase& c : attention_cases()) {
    SCOPED_TRACE(c.name);
    const AttentionValues<double> x(c.attributes);
    const auto got = Blocks<double>(c, x, two_sets(c.attributes.length), 1).run();
    const auto want = run_attention(c, x);
    const auto near = [](const std::vector<double>& a, const std::vector<double>& b) {
      for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-12) << i;
    };
    near(got.o, want.o), near(got.dq, want.dq), near(got.dk, want.dk), near(got.dv, want.dv);
  }
}

TEST(AttentionBlock, SameBitsForAnyNumberOfThreads) {
  const AttentionCase c = make_case(
      "threads",
      {.batch = 1, .length = 500, .q_heads = 4, .kv_heads = 1, .head_dim = 64, .v_head_dim = 32},
      200);
  const AttentionValues<BFloat16> x(c.attributes);
  const auto one = Blocks<BFloat16>(c, x, two_sets(500), 1).run();
  for (int threads : {2, 3, 8}) {
    expect_same_bits(Blocks<BFloat16>(c, x, two_sets(500), threads).run(), one);
  }
}

TEST(AttentionBlock, QueriesThatSeeNothingKeepWhatTheyHad) {
  Device device;
  Stream stream = Stream::immediate(device);
  const AttentionBlock a{.batch = 1,
                         .queries = 3,
                         .keys = 2,
                         .q_heads = 1,
                         .kv_heads = 1,
                         .head_dim = 4,
                         .v_head_dim = 4};
  const std::vector<float> ones(12, 1.0f), eights(8, 1.0f), logs{2.0f, 3.0f, 4.0f};
  const Tensor o = tensor_of(device, a.o_shape(), ones);
  const Tensor log_sum = tensor_of(device, a.log_sum_exp_shape(), logs);
  const BlockOperands x{.q = tensor_of(device, a.q_shape(), ones),
                        .k = tensor_of(device, a.k_shape(), eights),
                        .v = tensor_of(device, a.v_shape(), eights),
                        .low = tensor_of<int32_t>(device, {1, 3}, {0, 1, 2}),
                        .high = tensor_of<int32_t>(device, {1, 3}, {0, 1, 2})};
  merge_attention_block(stream, a, x, o, log_sum);
  EXPECT_EQ(copy_of<float>(o), ones);
  EXPECT_EQ(copy_of<float>(log_sum), logs);
}

TEST(AttentionBlock, RefusesBordersThatGoBackOrLeaveTheKeys) {
  Device device;
  Stream stream = Stream::immediate(device);
  const AttentionBlock a{.batch = 1,
                         .queries = 2,
                         .keys = 4,
                         .q_heads = 1,
                         .kv_heads = 1,
                         .head_dim = 4,
                         .v_head_dim = 4};
  const auto refused = [&](const std::vector<int32_t>& low, const std::vector<int32_t>& high) {
    const std::vector<float> q(8), k(16);
    const BlockOperands x{.q = tensor_of(device, a.q_shape(), q),
                          .k = tensor_of(device, a.k_shape(), k),
                          .v = tensor_of(device, a.v_shape(), k),
                          .low = tensor_of(device, {1, 2}, low),
                          .high = tensor_of(device, {1, 2}, high)};
    try {
      merge_attention_block(stream, a, x, Tensor::zeros(device, a.o_shape(), Dtype::f32),
                            Tensor::zeros(device, a.log_sum_exp_shape(), Dtype::f32));
    } catch (const Error&) {
      return true;
    }
    return false;
  };
  EXPECT_FALSE(refused({0, 0}, {1, 4}));
  EXPECT_TRUE(refused({1, 0}, {1, 4}));
  EXPECT_TRUE(refused({0, 0}, {2, 1}));
  EXPECT_TRUE(refused({0, 0}, {1, 5}));
  EXPECT_TRUE(refused({0, 3}, {1, 2}));
  EXPECT_TRUE(refused({-1, 0}, {1, 2}));
}

}  // namespace
}  // namespace shoestring::attention

#pragma once
// Attention problems (tests/core/ops/attention_case.h) shared out among ranks.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>

#include "core/layers/attention.h"
#include "core/tape.h"
#include "parallel/comm/in_process.h"
#include "parallel/context_cut.h"
#include "tests/core/ops/attention_case.h"

namespace shoestring {

using attention::AttentionCase;
using attention::AttentionResult;
using attention::AttentionValues;

// The rows made longer, up to a multiple of `multiple`, as pad_rows() does.
inline AttentionCase padded_case(const AttentionCase& c, int64_t multiple) {
  AttentionCase result = c;
  const int64_t have = c.attributes.length;
  result.attributes.length = (have + multiple - 1) / multiple * multiple;
  result.first_key.clear();
  for (int64_t b = 0; b < c.attributes.batch; ++b) {
    const auto row = c.first_key.begin() + b * have;
    result.first_key.insert(result.first_key.end(), row, row + have);
    result.first_key.resize(static_cast<size_t>((b + 1) * result.attributes.length),
                            static_cast<int32_t>(have));
  }
  return result;
}

class NoParams : public ParamSource {
 public:
  void acquire(int, Phase) override {}
  void release(int, Phase) override {}
  Tensor weight(const Param&) override { return {}; }
  Tensor gradient(const Param&) override { return {}; }
  void gradient_ready(const Param&) override {}
};

// One rank's part of a problem, on a tape of its own.
template <class T>
class ContextRank {
 public:
  // `worker`: the tape's stream is a thread of its own.
  ContextRank(const AttentionCase& c, const AttentionValues<T>& x, Communicator& ranks,
              bool worker = false)
      : case_(c),
        share_(context_share(c.attributes.length, ranks.rank(), ranks.size())),
        stream_(worker ? Stream::worker(device_, "compute") : Stream::immediate(device_)),
        abort_(ranks),
        tape_(stream_, source_, Tape::Mode::training),
        q_(leaf(x.q)),
        k_(leaf(x.k)),
        v_(leaf(x.v)),
        dy_(cut(x.dy)),
        first_key_(cut(c.first_key).reshape({c.attributes.batch, share_.tokens()})) {}

  void forward(AttentionCore& core) {
    const Attention::Attributes& a = case_.attributes;
    o_ = core.run(tape_,
                  {.batch = a.batch,
                   .length = share_.tokens(),
                   .q_heads = a.q_heads,
                   .kv_heads = a.kv_heads,
                   .head_dim = a.head_dim,
                   .v_head_dim = a.v_head_dim,
                   .scale = a.scale,
                   .window = a.window},
                  q_, k_, v_, first_key_);
    stream_.synchronize();
  }
  void backward() {
    tape_.seed(o_, dy_);
    tape_.backward();
    stream_.synchronize();
  }
  // Into the tensors of whole rows, of which every rank writes its own.
  void write(AttentionResult<T>& to) {
    put(o_.tensor(), to.o);
    put(tape_.take_gradient(q_), to.dq);
    put(tape_.take_gradient(k_), to.dk);
    put(tape_.take_gradient(v_), to.dv);
  }
  Device& device() { return device_; }
  const ContextShare& share() const { return share_; }

 private:
  int64_t token(int64_t i) const {  // of the whole rows
    return i / share_.tokens() * share_.row_length() + share_.column(i % share_.tokens());
  }
  template <class U>
  Tensor cut(const std::vector<U>& whole) {
    const int64_t rows = case_.attributes.batch * share_.tokens();
    const auto columns =
        static_cast<int64_t>(whole.size()) / (case_.attributes.batch * share_.row_length());
    std::vector<U> part;
    for (int64_t i = 0; i < rows; ++i) {
      const auto row = whole.begin() + token(i) * columns;
      part.insert(part.end(), row, row + columns);
    }
    return attention::tensor_of(device_, {rows, columns}, part);
  }
  Value leaf(const std::vector<T>& whole) { return tape_.leaf(cut(whole), true); }
  void put(const Tensor& part, std::vector<T>& whole) const {
    for (int64_t i = 0; i < part.rows(); ++i) {
      const T* const row = part.data<T>() + i * part.columns();
      std::copy_n(row, part.columns(), whole.begin() + token(i) * part.columns());
    }
  }

  const AttentionCase& case_;
  ContextShare share_;
  Device device_{DeviceKind::cpu, 0, 1};
  Stream stream_;
  AbortOnUnwind abort_;
  NoParams source_;
  Tape tape_;
  Value q_, k_, v_, o_;
  Tensor dy_, first_key_;
};

using MakeCore = std::function<std::unique_ptr<AttentionCore>(Communicator&, Device&)>;

// The length must suit the ranks.
template <class T>
AttentionResult<T> run_over_ranks(const AttentionCase& c, const AttentionValues<T>& x, int ranks,
                                  const MakeCore& make, bool worker = false) {
  AttentionResult<T> result;
  result.o.resize(x.dy.size());
  result.dq.resize(x.q.size());
  result.dk.resize(x.k.size());
  result.dv.resize(x.v.size());
  run_ranks(ranks,
            [&](Communicator& world) {
              ContextRank<T> rank(c, x, world, worker);
              const auto core = make(world, rank.device());
              rank.forward(*core);
              rank.backward();
              rank.write(result);
            },
            {.deadline = std::chrono::seconds(120)});
  return result;
}

template <class T>
double norm_of(const std::vector<T>& x) {
  double sum = 0;
  for (T value : x) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum);
}

// Norm of the difference over the norm; over dy's where nothing but rounding is left, as in the
// gradients of queries that see a single key.
template <class T>
void expect_near(std::string_view what, const std::vector<T>& got, const std::vector<T>& want,
                 double dy, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double apart = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    sum += apart * apart;
  }
  const double norm = norm_of(want), against = norm < 1e-3 * dy ? dy : norm;
  EXPECT_LE(std::sqrt(sum), tolerance * against) << what;
}

template <class T>
void expect_near(const AttentionResult<T>& got, const AttentionResult<T>& want,
                 const AttentionValues<T>& x, double tolerance) {
  const double dy = norm_of(x.dy);
  expect_near("o", got.o, want.o, dy, tolerance);
  expect_near("dq", got.dq, want.dq, dy, tolerance);
  expect_near("dk", got.dk, want.dk, dy, tolerance);
  expect_near("dv", got.dv, want.dv, dy, tolerance);
}

template <class T>
double dot(const std::vector<T>& x, const std::vector<T>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum += static_cast<double>(x[i]) * static_cast<double>(y[i]);
  }
  return sum;
}

}  // namespace shoestring

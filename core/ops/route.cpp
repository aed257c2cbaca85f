#include "core/ops/route.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr double least_sum = 1e-20;
constexpr int64_t block_tokens = 64;  // whose figures are summed by one thread, in order
constexpr int64_t exponentials_a_range = 4096;

size_t index(int64_t i) { return static_cast<size_t>(i); }

// The scores of one token and what is made of them.
template <class S>
class TokenScores {
 public:
  TokenScores(const Route::Attributes& a, int64_t experts)
      : a_(a), score_(index(experts)), soft_(index(experts)) {}

  void make(const S* logits) {
    const size_t n = score_.size();
    if (!a_.sigmoid || a_.z_factor != 0) make_softmax(logits);
    if (!a_.sigmoid) {
      score_ = soft_;
      sum_ = 1;
      return;
    }
    sum_ = 0;
    for (size_t i = 0; i < n; ++i) {
      score_[i] = 1 / (1 + std::exp(-logits[i]));
      sum_ += score_[i];
    }
  }
  const std::vector<S>& scores() const { return score_; }
  S sum() const { return sum_; }  // of the scores
  S lse() const { return lse_; }  // of the logits; made for softmax and for the z-loss
  S softmax(size_t i) const { return soft_[i]; }
  double entropy() const {
    double terms = 0;
    for (S s : score_) {
      if (s > 0) terms += static_cast<double>(s) * std::log(static_cast<double>(s));
    }
    const auto sum = static_cast<double>(sum_);
    return std::log(sum) - terms / sum;
  }

 private:
  void make_softmax(const S* logits) {
    const size_t n = soft_.size();
    const S largest = *std::max_element(logits, logits + n);
    S sum = 0;
    for (size_t i = 0; i < n; ++i) sum += soft_[i] = std::exp(logits[i] - largest);
    for (size_t i = 0; i < n; ++i) soft_[i] /= sum;
    lse_ = largest + std::log(sum);
  }
  const Route::Attributes& a_;
  std::vector<S> score_, soft_;
  S sum_ = 1, lse_ = 0;
};

// The `count` largest values among the open places, in falling order, ties by the lower place.
// What is not a number is chosen only when nothing else is left or when it stands first.
template <class S>
void pick(const std::vector<S>& values, std::vector<uint8_t>& open, int64_t count, int32_t* ids) {
  for (int64_t k = 0; k < count; ++k) {
    size_t best = values.size();
    for (size_t i = 0; i < values.size(); ++i) {
      if (open[i] && (best == values.size() || values[i] > values[best])) best = i;
    }
    open[best] = 0;
    ids[k] = static_cast<int32_t>(best);
  }
}

template <class S>
class Chooser {
 public:
  Chooser(const Route::Attributes& a, int64_t experts)
      : a_(a),
        value_(index(experts)),
        open_(index(experts)),
        group_score_(index(a.groups)),
        group_open_(index(a.groups)),
        group_ids_(index(a.groups_chosen)) {}

  // The chosen experts of a token.
  void choose(const std::vector<S>& scores, const float* bias, int32_t* ids) {
    for (size_t i = 0; i < scores.size(); ++i) {
      value_[i] = bias ? scores[i] + static_cast<S>(bias[i]) : scores[i];
    }
    open_best_groups();
    pick(value_, open_, a_.chosen, ids);
  }
  // The best scores, without bias and groups.
  void choose_plainly(const std::vector<S>& scores, int32_t* ids) {
    std::fill(open_.begin(), open_.end(), uint8_t{1});
    pick(scores, open_, a_.chosen, ids);
  }

 private:
  void open_best_groups() {
    std::fill(open_.begin(), open_.end(), static_cast<uint8_t>(a_.groups_chosen == a_.groups));
    if (a_.groups_chosen == a_.groups) return;
    const size_t size = value_.size() / group_score_.size();
    for (size_t g = 0; g < group_score_.size(); ++g) {
      group_score_[g] = score_of_group(value_.data() + g * size, size);
    }
    std::fill(group_open_.begin(), group_open_.end(), uint8_t{1});
    pick(group_score_, group_open_, a_.groups_chosen, group_ids_.data());
    for (int32_t g : group_ids_)
      std::fill_n(open_.begin() + g * static_cast<int64_t>(size), size, 1);
  }
  S score_of_group(const S* values, size_t size) const {
    S first = values[0], second = -std::numeric_limits<S>::infinity();
    for (size_t i = 1; i < size; ++i) {
      second = std::max(second, std::min(first, values[i]));
      first = std::max(first, values[i]);
    }
    return a_.best_of_group ? first : first + second;
  }
  const Route::Attributes& a_;
  std::vector<S> value_;
  std::vector<uint8_t> open_;
  std::vector<S> group_score_;
  std::vector<uint8_t> group_open_;
  std::vector<int32_t> group_ids_;
};

struct Forward {
  Route::Attributes a;
  Tensor logits, bias, ids, gates, figures, sequence_counts;
  int64_t tokens() const { return logits.rows(); }
  int64_t experts() const { return logits.columns(); }
  int64_t length() const { return tokens() / a.sequences; }
  int64_t blocks() const { return (length() + block_tokens - 1) / block_tokens; }  // of a sequence
  // Sums of a block of tokens: choices, p, plain choices, entropy, squared lse.
  int64_t sums() const { return 3 * experts() + 2; }
};

template <class S>
void make_gates(const Route::Attributes& a, const std::vector<S>& scores, const int32_t* ids,
                S* gates) {
  S sum = 0;
  for (int64_t k = 0; k < a.chosen; ++k) sum += gates[k] = scores[index(ids[k])];
  const S factor = a.renormalise ? static_cast<S>(a.scaling) / (sum + static_cast<S>(least_sum))
                                 : static_cast<S>(a.scaling);
  for (int64_t k = 0; k < a.chosen; ++k) gates[k] *= factor;
}

template <class S>
void route_block(const Forward& f, int64_t begin, int64_t end, double* sums) {
  const auto n = static_cast<size_t>(f.experts());
  TokenScores<S> token(f.a, f.experts());
  Chooser<S> chooser(f.a, f.experts());
  std::vector<int32_t> plain(index(f.a.chosen));
  const float* bias = f.bias ? f.bias.data<float>() : nullptr;
  std::fill_n(sums, f.sums(), 0.0);
  for (int64_t t = begin; t < end; ++t) {
    int32_t* ids = f.ids.data<int32_t>() + t * f.a.chosen;
    token.make(f.logits.data<S>() + t * f.experts());
    chooser.choose(token.scores(), bias, ids);
    make_gates(f.a, token.scores(), ids, f.gates.data<S>() + t * f.a.chosen);
    for (int64_t k = 0; k < f.a.chosen; ++k) sums[ids[k]] += 1;
    for (size_t i = 0; i < n; ++i) {
      sums[n + i] += static_cast<double>(token.scores()[i] / token.sum());
    }
    if (f.a.sequence_factor != 0) {
      chooser.choose_plainly(token.scores(), plain.data());
      for (int32_t id : plain) sums[2 * n + index(id)] += 1;
    }
    sums[3 * n] += token.entropy();
    const auto lse = static_cast<double>(token.lse());
    if (f.a.z_factor != 0) sums[3 * n + 1] += lse * lse;
  }
}

// Sums of blocks, in order, become the figures.
void fold_blocks(const Forward& f, const std::vector<double>& blocks) {
  const int64_t n = f.experts();
  double* figures = f.figures.data<double>();
  std::fill_n(figures, f.figures.elements(), 0.0);
  std::vector<double> sequence(index(f.sums()));
  double loss = 0;
  for (int64_t b = 0; b < f.a.sequences; ++b) {
    std::fill(sequence.begin(), sequence.end(), 0.0);
    for (int64_t i = 0; i < f.blocks(); ++i) {
      const double* from = blocks.data() + (b * f.blocks() + i) * f.sums();
      for (size_t j = 0; j < sequence.size(); ++j) sequence[j] += from[j];
    }
    for (int64_t i = 0; i < 2 * n; ++i) figures[i] += sequence[index(i)];
    figures[2 * n + 1] += sequence[index(3 * n)];
    figures[2 * n + 3] += sequence[index(3 * n + 1)];
    if (!f.sequence_counts) continue;
    const auto length = static_cast<double>(f.length());
    const double share = static_cast<double>(n) / (static_cast<double>(f.a.chosen) * length);
    for (int64_t i = 0; i < n; ++i) {
      const double count = sequence[index(2 * n + i)];
      f.sequence_counts.data<double>()[b * n + i] = count;
      loss += share * count * sequence[index(n + i)] / length;
    }
  }
  figures[2 * n] = static_cast<double>(f.tokens());
  figures[2 * n + 2] = loss / static_cast<double>(f.a.sequences);
}

void forward_cpu(Stream& stream, const Forward& arguments) {
  stream.run([&device = stream.device(), f = arguments] {
    std::vector<double> sums(index(f.a.sequences * f.blocks() * f.sums()));
    const int64_t grain = rows_a_range(block_tokens * f.experts(), exponentials_a_range);
    parallel_for(device, f.a.sequences * f.blocks(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block / f.blocks() * f.length();
        const int64_t from = first + block % f.blocks() * block_tokens;
        const int64_t to = std::min(from + block_tokens, first + f.length());
        double* own = sums.data() + block * f.sums();
        f.logits.dtype() == Dtype::f64 ? route_block<double>(f, from, to, own)
                                       : route_block<float>(f, from, to, own);
      }
    });
    fold_blocks(f, sums);
  });
}

struct Backward {
  Route::Attributes a;
  Route::Saved saved;
  Tensor dgates, dlogits;
  int64_t experts() const { return saved.logits.columns(); }
  int64_t tokens() const { return saved.logits.rows(); }
};

// The derivative of all balance losses by p of a token of the sequence.
template <class S>
std::vector<S> slope_of_balance(const Backward& b, int64_t sequence) {
  const RouteFigures own = RouteFigures::of(b.saved.figures);
  const auto n = static_cast<double>(b.experts());
  const double length = own.tokens / static_cast<double>(b.a.sequences);
  const bool shared = b.a.load != nullptr && b.a.load->tokens > 0;
  std::vector<S> slope(index(b.experts()));
  for (size_t i = 0; i < slope.size(); ++i) {
    double sum = b.a.micro_factor * n * own.counts[i] / own.tokens;
    sum += b.a.global_factor * n *
           (shared ? b.a.load->counts[i] / b.a.load->tokens : own.counts[i] / own.tokens);
    if (b.saved.sequence_counts) {
      const double count =
          b.saved.sequence_counts.data<double>()[index(sequence) * slope.size() + i];
      sum += b.a.sequence_factor * n * count / (static_cast<double>(b.a.chosen) * length);
    }
    // The mean over sequences of means over their tokens is the mean over all tokens.
    slope[i] = static_cast<S>(sum / own.tokens);
  }
  return slope;
}

// ds of the gates: renormalised ones depend on all chosen scores.
template <class S>
void add_gate_slopes(const Backward& b, const std::vector<S>& scores, int64_t t,
                     std::vector<S>& ds) {
  const int32_t* ids = b.saved.ids.data<int32_t>() + t * b.a.chosen;
  const S* dg = b.dgates.data<S>() + t * b.a.chosen;
  const S scaling = static_cast<S>(b.a.scaling);
  S sum = static_cast<S>(least_sum), dot = 0;
  for (int64_t k = 0; k < b.a.chosen; ++k) sum += scores[index(ids[k])];
  for (int64_t k = 0; k < b.a.chosen; ++k) dot += dg[k] * scores[index(ids[k])];
  for (int64_t k = 0; k < b.a.chosen; ++k) {
    ds[index(ids[k])] += b.a.renormalise ? scaling * (dg[k] - dot / sum) / sum : scaling * dg[k];
  }
}

template <class S>
void backward_tokens(const Backward& b, int64_t begin, int64_t end) {
  const auto n = static_cast<size_t>(b.experts());
  const int64_t length = b.tokens() / b.a.sequences;
  const S z = static_cast<S>(2 * b.a.z_factor / static_cast<double>(b.tokens()));
  TokenScores<S> token(b.a, b.experts());
  std::vector<S> ds(n), slope;
  for (int64_t t = begin; t < end; ++t) {
    if (t == begin || t % length == 0) slope = slope_of_balance<S>(b, t / length);
    token.make(b.saved.logits.data<S>() + t * b.experts());
    const std::vector<S>& s = token.scores();
    S mean = 0;
    for (size_t i = 0; i < n; ++i) mean += slope[i] * s[i];
    mean /= token.sum();
    for (size_t i = 0; i < n; ++i) ds[i] = (slope[i] - mean) / token.sum();
    if (b.dgates) add_gate_slopes(b, s, t, ds);
    S dot = 0;
    if (!b.a.sigmoid) {
      for (size_t i = 0; i < n; ++i) dot += ds[i] * s[i];
    }
    S* dl = b.dlogits.data<S>() + t * b.experts();
    for (size_t i = 0; i < n; ++i) dl[i] = s[i] * (b.a.sigmoid ? ds[i] * (1 - s[i]) : ds[i] - dot);
    if (z == 0) continue;
    for (size_t i = 0; i < n; ++i) dl[i] += z * token.lse() * token.softmax(i);
  }
}

void backward_cpu(Stream& stream, const Backward& arguments) {
  stream.run([&device = stream.device(), b = arguments] {
    const int64_t grain = rows_a_range(b.experts(), exponentials_a_range);
    parallel_for(device, b.tokens(), grain, [&](int64_t begin, int64_t end) {
      b.dlogits.dtype() == Dtype::f64 ? backward_tokens<double>(b, begin, end)
                                      : backward_tokens<float>(b, begin, end);
    });
  });
}

void check_inputs(const Route::Attributes& a, const Tensor& logits, const Tensor& bias) {
  const int64_t n = logits.columns();
  if (logits.dtype() != Dtype::f32 && logits.dtype() != Dtype::f64) {
    fail(cat("[route] logits are ", logits.text(), ": they must be f32 or f64"));
  }
  if (bias) check_tensor(Route::name, "bias", bias, {n}, Dtype::f32);
  const bool groups =
      a.groups >= 1 && n % a.groups == 0 && a.groups_chosen >= 1 && a.groups_chosen <= a.groups;
  if (!groups || a.chosen < 1 || a.groups_chosen * (n / a.groups) < a.chosen) {
    fail(cat("[route] ", a.chosen, " of ", n, " experts in ", a.groups_chosen, " of ", a.groups,
             " groups cannot be chosen"));
  }
  if (!a.best_of_group && a.groups_chosen < a.groups && n / a.groups < 2) {
    fail("[route] the two best of a group of one");
  }
  if (a.sequences < 1 || logits.rows() % a.sequences != 0) {
    fail(cat("[route] ", logits.rows(), " tokens are not ", a.sequences, " equal sequences"));
  }
}

}  // namespace

RouteFigures RouteFigures::of(const Tensor& figures) {
  const std::span<const double> all = figures.span<double>();
  const size_t n = (all.size() - 4) / 2;
  return {.counts = all.first(n),
          .probabilities = all.subspan(n, n),
          .tokens = all[2 * n],
          .entropy = all[2 * n + 1],
          .sequence = all[2 * n + 2],
          .squared_lse = all[2 * n + 3]};
}

Tensors<3> Route::forward(Stream& stream, const Attributes& a, const Tensors<2>& inputs,
                          Saved& saved) {
  const auto& [logits, bias] = inputs;
  check_inputs(a, logits, bias);
  Device& device = stream.device();
  const int64_t n = logits.columns();
  // Figures are small and read after the tape's work: no recompute policy drops them.
  Forward f{.a = a,
            .logits = logits,
            .bias = bias,
            .ids = Tensor(device, {logits.rows(), a.chosen}, Dtype::i32),
            .gates = Tensor(device, {logits.rows(), a.chosen}, logits.dtype()),
            .figures = Tensor(device, {2 * n + 4}, Dtype::f64, MemoryKind::other),
            .sequence_counts = {}};
  if (a.sequence_factor != 0) {
    f.sequence_counts = Tensor(device, {a.sequences, n}, Dtype::f64, MemoryKind::other);
  }
  on<const Forward&>(stream, name, forward_cpu, nullptr, f);
  saved = {
      .logits = logits, .ids = f.ids, .figures = f.figures, .sequence_counts = f.sequence_counts};
  return {f.ids, f.gates, f.figures};
}

Tensors<2> Route::grad_input(Stream& stream, const Attributes& a, const Saved& saved,
                             const Tensors<3>& dy) {
  const Tensor& logits = saved.logits;
  if (dy[1]) check_tensor(name, "dgates", dy[1], {logits.rows(), a.chosen}, logits.dtype());
  const Backward b{.a = a,
                   .saved = saved,
                   .dgates = dy[1],
                   .dlogits = Tensor(stream.device(), logits.shape(), logits.dtype())};
  on<const Backward&>(stream, name, backward_cpu, nullptr, b);
  return {b.dlogits, Tensor()};
}

}  // namespace shoestring

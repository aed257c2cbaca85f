#include "parallel/traffic_forecast.h"

#include <algorithm>

#include "core/check.h"
#include "core/fp8/experts.h"
#include "core/fp8/packed_rows.h"
#include "core/ops/head_loss.h"
#include "core/text.h"
#include "parallel/context_cut.h"
#include "parallel/gradient_traffic.h"
#include "parallel/model_stages.h"

namespace shoestring {
namespace {

using Op = Call::Op;
constexpr int64_t number = 4;  // bytes of a gradient's element, a count, a router's logit
constexpr int64_t figure = 8;  // bytes of a figure in f64

// What the recipe makes of a matrix, f(its layer); `otherwise`: it is not multiplied in FP8.
template <class F>
int64_t in_fp8(const StepFacts& facts, const std::string& name, int64_t otherwise, F&& f) {
  const Param matrix{.info = {.name = name, .shape = {1, 1}}};
  if (facts.fp8 == nullptr || !multiplies_in_fp8(*facts.fp8, matrix.info, facts.model.layers)) {
    return otherwise;
  }
  Device device(DeviceKind::cpu, 0, 1);
  const ParamStore nothing(device, {}, Dtype::f32);
  return f(Fp8Layer(*facts.fp8, nothing, matrix));
}

// Sums over all ranks; a group's ranks together send (n-1) times what each of them ends up with.
class StepTraffic {
 public:
  explicit StepTraffic(const StepFacts& f)
      : f_(f),
        m_(f.model),
        mesh_(f.part.mesh.resolved(f.ranks), f.ranks),
        t_(mesh_.extent(MeshAxis::tp)),
        c_(mesh_.extent(MeshAxis::cp)),
        e_(mesh_.extent(MeshAxis::ep)),
        s_(mesh_.extent(MeshAxis::etp)),
        p_(mesh_.extent(MeshAxis::pp)),
        data_(mesh_.size(MeshGroup::dp)),
        slots_(p_ > 1 ? 1 : (f.micro_batches + data_ - 1) / data_),
        tokens_(f.sequences * f.length),
        width_(static_cast<int64_t>(size_of(f.dtype))),
        schedule_(schedule_of(f.part, p_ > 1 ? static_cast<int>(f.micro_batches / data_) : 1)) {
    const int stages = schedule_.where.stages();
    chunks_ = cut(m_, f.part.blocks.empty() ? even_split(m_, stages) : f.part.blocks);
  }

  TrafficForecast run() {
    scatter_rows(m_.hidden, 1);  // the embedding
    for (int64_t i = 0; i < m_.layers + m_.mtp.depth; ++i) add_block(i);
    for (int64_t k = 0; k < m_.mtp.depth; ++k) scatter_rows(m_.hidden, in_block());
    for (int64_t k = 0; k <= m_.mtp.depth; ++k) gather_rows(m_.hidden, 1);
    const int64_t rows = f_.micro_batches * tokens_ * (1 + m_.mtp.depth) - f_.rows_without_labels;
    add(Op::all_gather, rows * 4 * figure * t_ * (t_ - 1));
    add_borders();
    add_first_keys();
    add_loads();
    add_gradient_traffic(f_, mesh_, schedule_, chunks_, sum_);
    return sum_;
  }

 private:
  void add(Op op, int64_t bytes) { sum_.bytes_sent[static_cast<size_t>(op)] += bytes; }
  void each_micro(Op op, int64_t bytes) { add(op, bytes * f_.micro_batches); }

  // How often the forward pass runs: inside a block, up to its last product; inside attention.
  int64_t in_block() const { return f_.recompute == Recompute::block ? 2 : 1; }
  int64_t in_attention() const { return f_.recompute == Recompute::attention ? 2 : in_block(); }

  // This rank's rows -> all, and the sums of the gradients home.
  void gather_rows(int64_t columns, int64_t forwards) {
    const int64_t bytes = tokens_ * columns * (t_ - 1) * width_;
    each_micro(Op::all_gather, forwards * bytes);
    each_micro(Op::reduce_scatter, bytes);
  }
  void scatter_rows(int64_t columns, int64_t forwards) {
    const int64_t bytes = tokens_ * columns * (t_ - 1) * width_;
    each_micro(Op::reduce_scatter, forwards * bytes);
    each_micro(Op::all_gather, bytes);
  }

  void add_block(int64_t index) {
    const int64_t d = m_.hidden;
    const std::string prefix = block_prefix(m_, index);
    add_attention(prefix);
    const bool sparse = m_.moe.sparse(std::min(index, m_.layers - 1));
    if (sparse) add_router();
    if (sparse && e_ * s_ > 1) add_experts(prefix.substr(0, prefix.size() - 1));
    if (sparse && m_.moe.shared == 0) return;
    gather_rows(d, in_block());
    scatter_rows(d, 1);
  }

  void add_attention(const std::string& prefix) {
    if (m_.mla.on()) {
      m_.mla.q_latent > 0 ? gather_rows(m_.mla.q_latent, in_block())
                          : gather_rows(m_.hidden, in_attention());
      gather_rows(m_.mla.kv_latent + m_.mla.rope_dim, in_block());
    } else {
      gather_rows(m_.hidden, in_attention());
    }
    scatter_rows(m_.hidden, in_block());
    if (c_ > 1) add_context(prefix);
  }

  void add_context(const std::string& prefix) {
    const int64_t heads = m_.heads / t_;
    const int64_t kv_heads = m_.mla.on() ? heads : std::max<int64_t>(m_.kv_heads / t_, 1);
    const int64_t hd = m_.mla.on() ? m_.mla.qk_dim() : m_.dim_of_head();
    const int64_t hv = m_.mla.on() ? m_.mla.v_dim : hd;
    if (f_.part.context == ContextKind::ring) {
      const int64_t own = tokens_ / c_ * kv_heads * (hd + hv);
      const int64_t hops = (in_attention() + 1) * (c_ - 1) * width_ + c_ * number;
      each_micro(Op::exchange, t_ * c_ * own * hops);
      return;
    }
    // A piece for each of the other ranks; a key head goes to all that read it.
    const int64_t in = tokens_ / c_ * (heads * hd + std::max(kv_heads, c_) * (hd + hv)) / c_;
    const int64_t out = tokens_ / c_ * heads * hv / c_;
    // A copy of o that the product behind it keeps leaves nothing to replay o for.
    const bool copy = f_.recompute == Recompute::attention &&
                      in_fp8(f_, prefix + "attention.output.weight", 0, [](const Fp8Layer& l) {
                        return l.copy() == Fp8Copy::full ? 0 : 1;
                      }) > 0;
    const int64_t sent = (in_attention() + 1) * in + (copy ? 2 : in_attention() + 1) * out;
    each_micro(Op::all_to_all, t_ * c_ * (c_ - 1) * sent * width_);
  }

  // Logits of all tensor ranks' rows, then of all context ranks' columns.
  void add_router() {
    const int64_t logits = tokens_ * m_.moe.experts * number;
    each_micro(Op::all_gather, in_block() * logits * (t_ - 1 + t_ * (c_ - 1)));
  }

  void add_experts(const std::string& block) {
    const auto found = f_.experts.find(block);
    if (found == f_.experts.end()) {
      fail_usage(cat("the bytes of expert parallelism depend on the routing: the rows that ", block,
                     " sends are missing"));
    }
    const ExpertTraffic& rows = found->second;
    const NodeShape nodes = mesh_.node_shape(MeshGroup::ep);
    const bool two_levels = nodes.two_levels();
    const int64_t experts = m_.moe.experts, n = nodes.nodes, l = nodes.per_node;
    const int64_t counts = two_levels ? (n - 1) * (experts / n + 1) + (l - 1) * n * (experts / e_)
                                      : experts - experts / e_;
    each_micro(Op::all_to_all, t_ * c_ * counts * number);
    each_micro(Op::all_gather, t_ * c_ * experts * (s_ - 1) * number);
    if (two_levels) add(Op::all_to_all, rows.choices_across * number);
    const int64_t d = m_.hidden, plain = d * width_;
    const std::string at = block + ".moe.experts.";
    const int64_t dispatch = in_fp8(f_, at + "gate_up.weight", plain, [&](const Fp8Layer& l) {
      return input_is_sent(l) ? packed_columns(d, l.input()) : plain;
    });
    const int64_t gradient = in_fp8(f_, at + "down.weight", plain, [&](const Fp8Layer& l) {
      return gradient_is_sent(l) ? packed_columns(d, l.gradient()) : plain;
    });
    add(Op::all_to_all, in_block() * (rows.tokens * dispatch + rows.choices * plain));
    add(Op::all_to_all, rows.choices * (gradient + plain));
    if (f_.part.sum_in_nodes) {
      // Sums cross, one row a (token, node) in plain values, and gates of each choice that crossed.
      const int64_t inside = rows.choices - rows.choices_across, sums = rows.tokens - inside;
      const int64_t gates = rows.choices_across * number;
      add(Op::all_to_all, in_block() * ((rows.tokens - rows.choices) * plain + gates));
      add(Op::all_to_all, sums * plain - rows.choices_across * gradient + gates);
    }
    add(Op::all_gather, rows.given * (in_block() * dispatch + gradient));
    add(Op::reduce_scatter, rows.given * (in_block() + 1) * plain);
  }

  void add_borders() {
    const Placement& where = schedule_.where;
    int64_t borders = 0;
    for (int micro = 0; micro < where.micros; ++micro) {
      for (int stage = 0; stage + 1 < where.stages(); ++stage) {
        borders += where.rank_of(stage, micro) != where.rank_of(stage + 1, micro) ? 1 : 0;
      }
    }
    add(Op::exchange, borders * data_ * 2 * tokens_ * m_.hidden * width_);
  }

  // Of the forward passes of a rank's program: how many there are, and how many of stages with
  // attention are of another micro-batch than the one before.
  struct Passes {
    int64_t all = 0, turns = 0;
  };
  Passes passes_of(int rank) const {
    Passes passes;
    int last = -1;
    for (const Instruction& i : schedule_.ranks[static_cast<size_t>(rank)]) {
      if (i.what != Do::F) continue;
      ++passes.all;
      const Chunk& chunk = chunks_[static_cast<size_t>(i.stage)];
      const bool blocks = chunk.last_block > chunk.first_block;
      if (i.micro == last || (!blocks && !(chunk.head && m_.mtp.depth > 0))) continue;
      last = i.micro;
      ++passes.turns;
    }
    return passes;
  }

  void add_first_keys() {
    if (c_ == 1 || f_.part.context != ContextKind::all_to_all) return;
    int64_t gathers = p_ == 1 ? f_.micro_batches : 0;
    for (int rank = 0; p_ > 1 && rank < p_; ++rank) gathers += passes_of(rank).turns * data_;
    add(Op::all_gather, gathers * t_ * (c_ - 1) * tokens_ * number);
  }

  void add_loads() {
    if (!f_.loads || !m_.moe.on()) return;
    const auto blocks = static_cast<int64_t>(states_of(m_, whole_model(m_)).size());
    const int64_t sums = blocks * (m_.moe.experts + 1);
    for (int rank = 0; rank < p_; ++rank) {
      if (!is_first_copy(schedule_.where, rank)) continue;
      const int64_t ranks = copies_of(schedule_.where, rank) * mesh_.size(MeshGroup::stage);
      const int64_t times = p_ == 1 ? slots_ : passes_of(rank).all;
      add(Op::all_reduce, times * 2 * sums * (ranks - 1) * figure);
    }
  }

  const StepFacts& f_;
  const ModelConfig& m_;
  Mesh mesh_;
  int64_t t_, c_, e_, s_, p_, data_, slots_, tokens_, width_;
  Schedule schedule_;
  std::vector<Chunk> chunks_;
  TrafficForecast sum_;
};

// Labels of the main model (by = 0) or a module, of whole rows.
std::vector<int32_t> labels_of(const MicroBatch& m, int64_t by) {
  if (by == 0) return m.labels;
  const std::vector<int32_t>& documents = m.document_start.empty() ? m.first_key : m.document_start;
  std::vector<int32_t> tokens(m.tokens.size()), labels(m.tokens.size());
  const auto length = static_cast<size_t>(m.length);
  for (size_t at = 0; at < tokens.size(); at += length) {
    const auto row = [&](const std::vector<int32_t>& table) {
      return std::span(table).subspan(at, length);
    };
    shift_row({row(m.tokens), row(m.labels), row(documents)}, by,
              std::span(tokens).subspan(at, length), std::span(labels).subspan(at, length));
  }
  return labels;
}

int64_t rows_without(std::span<const int32_t> labels, int64_t step) {
  int64_t rows = 0;
  for (size_t at = 0; at < labels.size(); at += static_cast<size_t>(step)) {
    const size_t size = std::min(labels.size() - at, static_cast<size_t>(step));
    const auto chunk = labels.subspan(at, size);
    const bool none = std::all_of(chunk.begin(), chunk.end(), [](int32_t l) { return l < 0; });
    rows += none ? static_cast<int64_t>(size) : 0;
  }
  return rows;
}

}  // namespace

int64_t rows_without_labels(const StepFacts& f, std::span<const MicroBatch> micros) {
  const Mesh mesh(f.part.mesh.resolved(f.ranks), f.ranks);
  const int contexts = mesh.extent(MeshAxis::cp), tensors = mesh.extent(MeshAxis::tp);
  const int64_t widest = even_counts(f.model.vocabulary, tensors)[0];
  int64_t rows = 0;
  for (const MicroBatch& m : micros) {
    const int64_t all = m.sequences * m.length / contexts;
    const int64_t step = std::min(all, HeadLoss::chunk_rows({}, widest, f.dtype));
    for (int64_t by = 0; by <= f.model.mtp.depth; ++by) {
      const MicroBatch labels{
          .sequences = m.sequences, .length = m.length, .labels = labels_of(m, by)};
      for (int r = 0; r < contexts; ++r) {
        const MicroBatch own =
            contexts == 1 ? labels : cut_context(labels, context_share(m.length, r, contexts));
        rows += rows_without(own.labels, step);
      }
    }
  }
  return rows;
}

TrafficForecast forecast_traffic(const StepFacts& facts) { return StepTraffic(facts).run(); }

}  // namespace shoestring

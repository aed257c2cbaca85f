#include "parallel/tensor_parallel.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/tape.h"
#include "core/text.h"
#include "parallel/comm/collectives.h"
#include "parallel/row_ops.h"

namespace shoestring {
namespace {

using Rows = std::vector<RowRun>;

// Consecutive parts; the last ones may be shorter.
RowRun part_of(int64_t rows, int r, int t) {
  const std::vector<int64_t> counts = even_counts(rows, t);
  int64_t begin = 0;
  for (int i = 0; i < r; ++i) begin += counts[static_cast<size_t>(i)];
  return {.local = 0, .global = begin, .count = counts[static_cast<size_t>(r)]};
}

int64_t add_run(Rows& rows, int64_t global, int64_t count) {
  const int64_t local = rows.empty() ? 0 : rows.back().local + rows.back().count;
  rows.push_back({.local = local, .global = global, .count = count});
  return local + count;
}

// Heads of q in parts, and of k and v: in parts, or the one that a rank's queries read.
Rows rows_of_heads(const ModelConfig& m, int r, int t) {
  const int64_t hd = m.dim_of_head(), q = m.heads / t;
  const bool shared = m.kv_heads < t;
  const int64_t kv = shared ? 1 : m.kv_heads / t;
  const int64_t first_kv = shared ? r * m.kv_heads / t : r * kv;
  Rows rows;
  add_run(rows, r * q * hd, q * hd);
  add_run(rows, (m.heads + first_kv) * hd, kv * hd);
  add_run(rows, (m.heads + m.kv_heads + first_kv) * hd, kv * hd);
  return rows;
}

void keep_rows(ParamInfo& p, Rows rows) {
  p.shard.whole = p.shape;
  p.shape.set(0, rows.back().local + rows.back().count);
  p.shard.rows = std::move(rows);
}

void keep_columns(ParamInfo& p, int r, int t) {
  const RowRun part = part_of(p.shape.columns(), r, t);
  p.shard.whole = p.shape;
  p.shard.rows = {{.local = 0, .global = 0, .count = p.shape.rows()}};
  p.shard.first_column = part.global;
  p.shape.set(1, part.count);
}

// The same share of each of the fused matrices.
void keep_rows_of_parts(ParamInfo& p, int r, int t) {
  Rows rows;
  int64_t begin = 0;
  std::vector<int64_t> parts = p.parts.empty() ? std::vector<int64_t>{p.shape[0]} : p.parts;
  for (int64_t& part : parts) {
    const RowRun own = part_of(part, r, t);
    add_run(rows, begin + own.global, own.count);
    begin += part;
    part = own.count;
  }
  if (!p.parts.empty()) p.parts = parts;
  keep_rows(p, std::move(rows));
}

bool is_experts(const std::string& name) { return name.find(".moe.experts.") != std::string::npos; }
bool is_gate_up(const std::string& name) {
  return name.ends_with("gate_up.weight") && !is_experts(name);
}
bool is_down(const std::string& name) {
  return (name.ends_with("mlp.down.weight") || name.ends_with("shared.down.weight"));
}
bool is_latent_up(const std::string& name) {
  return name.ends_with("attention.q_up.weight") || name.ends_with("attention.q.weight") ||
         name.ends_with("attention.kv_up.weight");
}
bool is_fused_qkv(const std::string& name) {
  return name.ends_with("attention.qkv.weight") || name.ends_with("attention.qkv.bias");
}
bool is_table(const std::string& name) {
  return name == "embedding.weight" || name == "head.weight";
}

void shard(const ModelConfig& m, ParamInfo& p, int r, int t) {
  if (is_fused_qkv(p.name)) {
    Rows rows = rows_of_heads(m, r, t);
    if (!p.parts.empty()) p.parts = {rows[0].count, rows[1].count, rows[2].count};
    keep_rows(p, std::move(rows));
  } else if (is_latent_up(p.name) || is_gate_up(p.name) || is_table(p.name)) {
    keep_rows_of_parts(p, r, t);
  } else if (p.name.ends_with("attention.output.weight") || is_down(p.name)) {
    keep_columns(p, r, t);
  }
}

}  // namespace

std::vector<std::string> tensor_parallel_complaints(const ModelConfig& m, int t) {
  std::vector<std::string> list;
  const auto need = [&](bool fits, std::string why) {
    if (!fits) list.push_back(std::move(why));
  };
  need(m.heads % t == 0, cat("model.heads = ", m.heads, " is no multiple of it"));
  if (!m.mla.on()) {
    need(m.kv_heads % t == 0 || t % m.kv_heads == 0,
         cat("model.kv_heads = ", m.kv_heads, " is neither a multiple nor a divisor of it"));
  }
  const auto narrow = [&](std::string_view key, int64_t width) {
    need(width % t == 0, cat(key, " = ", width, " is no multiple of it"));
  };
  const bool dense = !m.moe.on() || m.moe.first_dense > 0 || m.moe.every > 1;
  if (dense) narrow("model.ffn", m.ffn);
  if (m.moe.on() && m.moe.shared > 0) narrow("model.moe.shared * ffn", m.moe.shared * m.moe.ffn);
  need(m.vocabulary >= t, cat("model.vocabulary = ", m.vocabulary, " is below it"));
  return list;
}

std::vector<ParamInfo> shard_parameters(const ModelConfig& model, std::vector<ParamInfo> whole,
                                        int r, int t) {
  if (t == 1) return whole;
  for (ParamInfo& p : whole) shard(model, p, r, t);
  return whole;
}

GradientSum gradient_sum_of(const ModelConfig& model, const ParamInfo& info, int t) {
  if (t == 1) return GradientSum::none;
  if (is_fused_qkv(info.name)) {
    return model.kv_heads < t ? GradientSum::shared_heads : GradientSum::none;
  }
  const bool cut = is_latent_up(info.name) || is_gate_up(info.name) || is_table(info.name) ||
                   info.name.ends_with("attention.output.weight") || is_down(info.name);
  return cut ? GradientSum::none : GradientSum::group;
}

// Merges the rows' sums of all parts.
class TensorParallel::Vocabulary : public VocabularyShard {
 public:
  Vocabulary(Communicator& group, int64_t size)
      : group_(group), size_(size), part_(part_of(size, group.rank(), group.size())) {}
  int64_t vocabulary() const override { return size_; }
  int64_t first() const override { return part_.global; }
  int64_t widest() const override { return even_counts(size_, group_.size())[0]; }
  void merge(Device& device, std::span<VocabularyRow> rows) const override {
    constexpr size_t width = 4;
    std::vector<double> own(rows.size() * width);
    for (size_t i = 0; i < rows.size(); ++i) {
      const VocabularyRow& row = rows[i];
      own[i * width] = row.lse, own[i * width + 1] = row.label, own[i * width + 2] = row.largest;
      own[i * width + 3] = static_cast<double>(row.greedy);
    }
    const auto ranks = static_cast<size_t>(group_.size());
    std::vector<double> all(own.size() * ranks);
    const std::vector<int64_t> counts(ranks, static_cast<int64_t>(own.size()));
    Stream stream = Stream::immediate(device);
    group_.all_gather(view_of(std::span(own)), counts, buffer_of(std::span(all)), stream);
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i] = {};
      double most = -INFINITY;
      for (size_t r = 0; r < ranks; ++r) most = std::max(most, at(all, own.size(), r, i)[0]);
      double sum = 0;
      for (size_t r = 0; r < ranks; ++r) {
        const double* part = at(all, own.size(), r, i);
        sum += std::exp(part[0] - most);
        rows[i].label = std::max(rows[i].label, part[1]);
        if (part[2] > rows[i].largest) {
          rows[i].largest = part[2];
          rows[i].greedy = static_cast<int64_t>(part[3]);
        }
      }
      rows[i].lse = most + std::log(sum);
    }
  }

 private:
  static const double* at(const std::vector<double>& all, size_t rank_size, size_t r, size_t i) {
    return all.data() + r * rank_size + i * 4;
  }
  Communicator& group_;
  int64_t size_;
  RowRun part_;
};

namespace {

template <class Op>
class Crossing : public Boundary {
 public:
  explicit Crossing(Communicator& group, RowTravel* travel = nullptr)
      : group_(group), travel_(travel) {}
  Value cross(Tape& tape, const Value& x) override {
    return apply<Op>(tape, {.group = &group_}, {x});
  }
  RowTravel* travel() override { return travel_; }

 private:
  Communicator& group_;
  RowTravel* travel_;
};

}  // namespace

TensorParallel::TensorParallel(const ModelConfig& model, Communicator& group, Device& device,
                               int runs)
    : model_(model), group_(group) {
  const int t = group.size();
  if (t == 1) return;
  const std::vector<std::string> complaints = tensor_parallel_complaints(model, t);
  if (!complaints.empty()) {
    std::string text = cat("the model cannot be cut into ", t, " parts by tensor parallelism:");
    for (const std::string& c : complaints) append(text, "\n  ", c);
    fail_usage(text);
  }
  if (runs > 0) transfers_ = std::make_unique<RowTransfers>(group, device, runs);
  RowTravel* gather = transfers_ ? &transfers_->gather() : nullptr;
  RowTravel* scatter = transfers_ ? &transfers_->scatter() : nullptr;
  edges_.push_back(std::make_unique<Crossing<GatherRows>>(group, gather));
  edges_.push_back(std::make_unique<Crossing<ScatterRows>>(group, scatter));
  edges_.push_back(std::make_unique<Crossing<GatherAlike>>(group));
  edges_.push_back(std::make_unique<Crossing<KeepRows>>(group));
  vocabulary_ = std::make_unique<Vocabulary>(group, model.vocabulary);
  boundaries_ = {.gather = edges_[0].get(),
                 .scatter = edges_[1].get(),
                 .gather_alike = edges_[2].get(),
                 .keep = edges_[3].get(),
                 .vocabulary = vocabulary_.get()};
  if (!model.mla.on() && model.kv_heads < t) {
    const auto head = static_cast<int>(group.rank() * model.kv_heads / t);
    const SplitName name("tp with one kv head");
    sharers_ = group.split(head, group.rank());
  }
}

TensorParallel::~TensorParallel() = default;

std::vector<ParamInfo> TensorParallel::shard(std::vector<ParamInfo> whole) const {
  return shard_parameters(model_, std::move(whole), group_.rank(), group_.size());
}

void TensorParallel::sum_gradient(const Param& p, const Tensor& g, Stream& stream) {
  const Buffer whole{g.raw(), g.elements(), g.dtype()};
  switch (gradient_sum_of(model_, p.info, group_.size())) {
    case GradientSum::none:
      return;
    case GradientSum::group:
      group_.all_reduce(whole, Reduce::sum, stream);
      return;
    case GradientSum::shared_heads: {
      // Behind the rows of q.
      const RowRun& keys = p.info.shard.rows[1];
      const int64_t begin = keys.local * (g.elements() / g.shape()[0]);
      sharers_->all_reduce(whole.part(begin, g.elements() - begin), Reduce::sum, stream);
      return;
    }
  }
}

}  // namespace shoestring

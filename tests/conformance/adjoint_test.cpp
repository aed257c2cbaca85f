// Every communication op beside its gradient: <A x, y> = <x, A' y> in f64, summed over the ranks,
// with parts that are uneven or empty where they may be. Of ops that are not linear A is the
// derivative, by differences.

#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "core/model/transformer.h"
#include "parallel/context_all_to_all.h"
#include "parallel/context_cut.h"
#include "parallel/context_ring.h"
#include "parallel/expert_ops.h"
#include "parallel/passes.h"
#include "parallel/pipeline_engine.h"
#include "parallel/row_ops.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/sequence_edges.h"
#include "parallel/tensor_parallel.h"
#include "tests/core/model/transformer_fixture.h"
#include "tests/parallel/expert_case.h"
#include "tests/support/source_tree.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

double dot(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), cat(a.text(), " against ", b.text()));
  double sum = 0;
  for (int64_t i = 0; i < a.elements(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

// One rank's part of <A x, y> and of <x, A' y>.
struct Products {
  double forward = 0, backward = 0;
};

// One rank's place, and tensors that it alone has or that all have alike.
struct Here {
  Communicator& ranks;
  Device& device;
  Stream& stream;
  Tensor own(const Shape& shape, const std::string& what) {
    return normal_tensor(device, shape, Dtype::f64, cat(what, " of rank ", ranks.rank()));
  }
  Tensor alike(const Shape& shape, const std::string& what) {
    return normal_tensor(device, shape, Dtype::f64, what);
  }
};
using OneRank = std::function<Products(Here&)>;

void expect_adjoint(const std::string& what, int ranks, const OneRank& run,
                    double tolerance = 1e-12) {
  run_ranks(ranks, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    Here here{world, device, stream};
    const Products p = run(here);
    std::array<double, 2> sums = {p.forward, p.backward};
    world.all_reduce(buffer_of(std::span<double>(sums)), Reduce::sum, stream);
    stream.synchronize();
    const double apart = std::abs(sums[0] - sums[1]);
    check(sums[0] != 0 && apart <= tolerance * std::max(1.0, std::abs(sums[0])),
          cat(what, " on ", ranks, " ranks: <A x, y> = ", sums[0], ", <x, A' y> = ", sums[1]));
  });
}

template <class Op>
Products products_of(Here& here, const typename Op::Attributes& a, const Tensor& x) {
  typename Op::Saved saved;
  const Tensor ax = Op::forward(here.stream, a, {x}, saved)[0];
  const Tensor y = here.own(ax.shape(), "y");
  const Tensor back = Op::grad_input(here.stream, a, saved, {y})[0];
  return {dot(ax, y), dot(x, back)};
}

// A result that all ranks have, and use, alike: it counts once.
template <class Op>
Products products_alike(Here& here, const typename Op::Attributes& a, const Tensor& x) {
  typename Op::Saved saved;
  const Tensor ax = Op::forward(here.stream, a, {x}, saved)[0];
  const Tensor y = here.alike(ax.shape(), "y");
  const Tensor back = Op::grad_input(here.stream, a, saved, {y})[0];
  return {here.ranks.rank() == 0 ? dot(ax, y) : 0, dot(x, back)};
}

constexpr int64_t width = 3;

OneRank gather_rows(int64_t rows) {
  return [=](Here& h) {
    return products_of<GatherRows>(h, {.group = &h.ranks}, h.own({rows, width}, "x"));
  };
}
OneRank gather_alike(int64_t rows) {
  return [=](Here& h) {
    return products_alike<GatherAlike>(h, {.group = &h.ranks}, h.own({rows, width}, "x"));
  };
}
template <class Op>
OneRank to_own_rows(int64_t rows) {
  return [=](Here& h) {
    return products_of<Op>(h, {.group = &h.ranks}, h.own({rows * h.ranks.size(), width}, "x"));
  };
}
OneRank gather_sequences(int64_t length) {
  return [=](Here& h) {
    const SequenceAttributes a{.group = &h.ranks, .sequences = 2};
    return products_alike<GatherSequences>(h, a, h.own({2 * length, width}, "x"));
  };
}
OneRank keep_sequences(int64_t length) {
  return [=](Here& h) {
    const SequenceAttributes a{.group = &h.ranks, .sequences = 2};
    return products_of<KeepSequences>(h, a, h.own({2 * length * h.ranks.size(), width}, "x"));
  };
}

// `heads`: query heads a rank has at the end; key heads are fewer than ranks by `copies`.
OneRank heads_for_tokens(int64_t heads, int64_t copies) {
  return [=](Here& h) {
    const int64_t c = h.ranks.size(), kv = c / copies, rows = 2 * 6;
    const HeadExchange common{.ranks = &h.ranks, .batch = 2, .length = 6};
    const HeadsForTokens::Attributes a{common,
                                       {.heads = heads * c, .width = 3},
                                       {.heads = kv, .width = 5, .copies = copies},
                                       {.heads = kv, .width = 7, .copies = copies}};
    const Tensors<3> x{h.own({rows, heads * c * 3}, "q"), h.own({rows, kv * 5}, "k"),
                       h.own({rows, kv * 7}, "v")};
    NothingSaved saved;
    const Tensors<3> ax = HeadsForTokens::forward(h.stream, a, x, saved);
    Tensors<3> y;
    for (size_t i = 0; i < 3; ++i) y[i] = h.own(ax[i].shape(), cat("y", i));
    const Tensors<3> back = HeadsForTokens::grad_input(h.stream, a, saved, y);
    Products p;
    for (size_t i = 0; i < 3; ++i) p.forward += dot(ax[i], y[i]), p.backward += dot(x[i], back[i]);
    return p;
  };
}
OneRank tokens_for_heads(int64_t heads) {
  return [=](Here& h) {
    const int64_t c = h.ranks.size();
    const HeadExchange common{.ranks = &h.ranks, .batch = 2, .length = 6};
    return products_of<TokensForHeads>(h, {common, {.heads = heads * c, .width = 3}},
                                       h.own({2 * 6 * c, heads * 3}, "o"));
  };
}

// Tokens and choices by rank: one has none, the others unequal numbers.
constexpr int64_t experts = 12, chosen = 3;
struct ExpertRank {
  ExpertRank(Here& h, const Standing& standing, Load load, double capacity)
      : group(h.ranks, standing, experts),
        tokens(h.ranks.rank() == 1 ? 0 : 4 + 3 * h.ranks.rank()) {
    // With a fixed number of rows ranks must have as many tokens.
    if (standing.fixed_rows > 0 || capacity > 0) tokens = 9;
    const Choice c = choices_of(h.device, load, h.ranks.rank(),
                                {tokens, chosen, experts, standing.ranks}, Dtype::f64);
    gates = c.gates;
    plan = plan_experts(h.stream, group.group, c.ids, c.gates, capacity);
  }
  GroupOf group;
  int64_t tokens;
  Tensor gates;
  std::shared_ptr<const ExpertPlan> plan;
};

struct ExpertSetting {
  Standing standing;
  Load load = Load::random;
  double capacity = 0;
  std::string text() const {
    return cat(", ", standing.text(), ", load ", static_cast<int>(load), ", capacity ", capacity);
  }
};

OneRank expert_send(const ExpertSetting& s) {
  return [=](Here& h) {
    const ExpertRank r(h, s.standing, s.load, s.capacity);
    return products_of<ExpertSend>(h, {.plan = r.plan, .encoding = {}},
                                   h.own({r.tokens, width}, "x"));
  };
}
OneRank expert_return(const ExpertSetting& s) {
  return [=](Here& h) {
    const ExpertRank r(h, s.standing, s.load, s.capacity);
    const ExpertReturn::Attributes a{.way = {r.plan, &r.plan->choices}, .encoding = {}};
    NothingSaved saved;
    const Tensor x = h.own({r.plan->choices.order.to, width}, "x");
    const Tensor home = ExpertReturn::forward(h.stream, a, {x}, saved)[0];
    Tensor y = h.own(home.shape(), "y");
    // Rows of choices that were dropped stand behind the others and mean nothing.
    const Tensor rest = y.rows(r.plan->own.offsets.span<int32_t>().back(), y.rows());
    std::memset(rest.raw(), 0, rest.bytes());
    const Tensor back = ExpertReturn::grad_input(h.stream, a, saved, {y})[0];
    return Products{dot(home, y), dot(x, back)};
  };
}
OneRank expert_gates(const ExpertSetting& s) {
  return [=](Here& h) {
    const ExpertRank r(h, s.standing, s.load, s.capacity);
    return products_of<ExpertGates>(h, {.plan = r.plan}, r.gates);
  };
}

// Rows of two documents, unequal, whose border lies on no rank's border.
Tensor own_first_key(Here& h, const ContextShare& share) {
  Tensor t(h.device, {1, share.tokens()}, Dtype::i32);
  const int64_t border = share.row_length() / 3 + 1;
  for (int64_t i = 0; i < share.tokens(); ++i) {
    t.data<int32_t>()[i] = static_cast<int32_t>(share.column(i) < border ? 0 : border);
  }
  return t;
}
Tensor moved(const Tensor& x, const Tensor& by, double h) {
  Tensor t(x.device(), x.shape(), Dtype::f64);
  for (int64_t i = 0; i < x.elements(); ++i) {
    t.data<double>()[i] = x.data<double>()[i] + h * by.data<double>()[i];
  }
  return t;
}

// <A dx, y> by differences, A the derivative at (q, k, v).
OneRank ring_attention(int64_t heads, int64_t kv_heads, int64_t window) {
  return [=](Here& h) {
    constexpr int64_t dim = 4;
    const int c = h.ranks.size();
    const ContextShare share = context_share(6 * c, h.ranks.rank(), c);
    const auto ring = h.ranks.split(0, h.ranks.rank());
    Stream transfers = Stream::worker(h.device, "ring");
    const AbortOnUnwind abort(*ring);
    const RingAttentionOp::Attributes a{.shape = {.batch = 1,
                                                  .length = share.tokens(),
                                                  .q_heads = heads,
                                                  .kv_heads = kv_heads,
                                                  .head_dim = dim,
                                                  .v_head_dim = dim,
                                                  .scale = 0.7,
                                                  .window = window},
                                        .ring = ring.get(),
                                        .transfers = &transfers};
    const int64_t rows = share.tokens();
    const auto three = [&](const std::string& what) {
      return Tensors<3>{h.own({rows, heads * dim}, "q" + what),
                        h.own({rows, kv_heads * dim}, "k" + what),
                        h.own({rows, kv_heads * dim}, "v" + what)};
    };
    const Tensors<3> x = three(""), dx = three(" moved");
    const Tensor first_key = own_first_key(h, share);
    const auto at = [&](double step, RingAttentionOp::Saved& saved) {
      return RingAttentionOp::forward(
          h.stream, a,
          {moved(x[0], dx[0], step), moved(x[1], dx[1], step), moved(x[2], dx[2], step), first_key},
          saved)[0];
    };
    constexpr double step = 1e-5;
    RingAttentionOp::Saved saved, unused;
    const Tensor o = at(0, saved);
    const Tensor y = h.own(o.shape(), "y");
    const double slope = (dot(at(step, unused), y) - dot(at(-step, unused), y)) / (2 * step);
    const Tensors<4> back = RingAttentionOp::grad_input(h.stream, a, saved, {y});
    Products p{slope, 0};
    for (size_t i = 0; i < 3; ++i) p.backward += dot(dx[i], back[i]);
    return p;
  };
}

void for_all_ops(const std::function<void(const std::string& op, const std::string& what, int ranks,
                                          const OneRank& run)>& visit) {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    visit("GatherRows", "", ranks, gather_rows(5));
    visit("ScatterRows", "", ranks, to_own_rows<ScatterRows>(4));
    visit("GatherAlike", "", ranks, gather_alike(5));
    visit("KeepRows", "", ranks, to_own_rows<KeepRows>(2));
    visit("GatherSequences", "", ranks, gather_sequences(3));
    visit("KeepSequences", "", ranks, keep_sequences(3));
    for (const int64_t copies : {1, 2, 4}) {
      if (ranks % copies != 0) continue;
      visit("HeadsForTokens", cat(", ", copies, " copies"), ranks, heads_for_tokens(2, copies));
    }
    visit("TokensForHeads", "", ranks, tokens_for_heads(2));
    visit("RingAttentionOp", "", ranks, ring_attention(2, 2, 0));
    visit("RingAttentionOp", ", shared heads and a window", ranks, ring_attention(4, 1, 5));
  }
  const std::vector<Standing> standings = {{.ranks = 2},
                                           {.ranks = 3},
                                           {.ranks = 4, .nodes = 2},
                                           {.ranks = 4, .nodes = 2, .sum_in_nodes = true},
                                           {.ranks = 6, .nodes = 3}};
  for (const Load load :
       {Load::random, Load::one_expert, Load::last_rank, Load::own_rank, Load::nothing_at_home}) {
    std::vector<ExpertSetting> settings;
    for (const Standing& s : standings) settings.push_back({s, load});
    settings.push_back({{.ranks = 3}, load, 0.8});
    settings.push_back({{.ranks = 3, .fixed_rows = 9}, load, 0.8});
    for (const ExpertSetting& s : settings) {
      visit("ExpertSend", s.text(), s.standing.ranks, expert_send(s));
      visit("ExpertReturn", s.text(), s.standing.ranks, expert_return(s));
      if (s.standing.sum_in_nodes) {
        visit("ExpertGates", s.text(), s.standing.ranks, expert_gates(s));
      }
    }
  }
}

TEST(Adjoints, OfEveryCommunicationOp) {
  int count = 0;
  for_all_ops([&](const std::string& op, const std::string& what, int ranks, const OneRank& run) {
    ++count;
    try {
      expect_adjoint(op + what, ranks, run, op == "RingAttentionOp" ? 1e-8 : 1e-12);
    } catch (const Error& e) {
      ADD_FAILURE() << e.what();
    }
  });
  EXPECT_GT(count, 100);
}

// An op that somebody adds and forgets here is found in the headers.
TEST(Adjoints, NoOpIsForgotten) {
  std::set<std::string> tried;
  for_all_ops(
      [&](const std::string& op, const std::string&, int, const OneRank&) { tried.insert(op); });
  constexpr std::string_view begin = "static_assert(", ops = "Op<";
  int found = 0;
  for (const SourceFile& file : source_files()) {
    if (file.folder() != "parallel" || !file.is_header()) continue;
    for (const std::string& line : file.lines) {
      const size_t at = line.find(ops);
      if (!line.starts_with(begin) || at == std::string::npos) continue;
      const size_t from = at + ops.size();
      const std::string name = line.substr(from, line.find('>') - from);
      EXPECT_TRUE(tried.contains(name))
          << file.path << ": the op " << name << " has no adjoint test";
      ++found;
    }
  }
  EXPECT_EQ(found, static_cast<int>(tried.size()));
}

// Parts of unequal size, some of them empty.
std::vector<int64_t> uneven(int ranks) {
  std::vector<int64_t> counts;
  for (int r = 0; r < ranks; ++r) counts.push_back(r % 3 == 1 ? 0 : 2 + 3 * r);
  return counts;
}

TEST(Adjoints, OfTheCollectivesUnderThem) {
  for (const int ranks : {1, 2, 3, 4, 7}) {
    const std::vector<int64_t> counts = uneven(ranks);
    const int64_t all = total(counts);
    const auto buffer = [](const Tensor& t) { return Buffer{t.raw(), t.elements(), t.dtype()}; };
    expect_adjoint("all_gather, reduce_scatter", ranks, [&](Here& h) {
      const int64_t own = counts[static_cast<size_t>(h.ranks.rank())];
      const Tensor x = h.own({own}, "x"), y = h.own({all}, "y");
      const Tensor ax(h.device, {all}, Dtype::f64), back(h.device, {own}, Dtype::f64);
      h.ranks.all_gather(buffer(x), counts, buffer(ax), h.stream);
      h.ranks.reduce_scatter(buffer(y), counts, buffer(back), Reduce::sum, h.stream);
      return Products{dot(ax, y), dot(x, back)};
    });
    expect_adjoint("all_reduce", ranks, [&](Here& h) {
      const Tensor x = h.own({all}, "x"), y = h.own({all}, "y");
      Tensor ax = moved(x, x, 0), back = moved(y, y, 0);
      h.ranks.all_reduce(buffer(ax), Reduce::sum, h.stream);
      h.ranks.all_reduce(buffer(back), Reduce::sum, h.stream);
      return Products{dot(ax, y), dot(x, back)};
    });
    expect_adjoint("all_to_all and back", ranks, [&](Here& h) {
      // Rank r sends rank s counts[(r + 2 s) % ranks] elements.
      std::vector<int64_t> out, in;
      const auto n = static_cast<size_t>(ranks), r = static_cast<size_t>(h.ranks.rank());
      for (size_t s = 0; s < n; ++s) {
        out.push_back(counts[(r + 2 * s) % n]);
        in.push_back(counts[(s + 2 * r) % n]);
      }
      const int64_t outs = total(out);
      const int64_t ins = total(in);
      const Tensor x = h.own({outs}, "x"), y = h.own({ins}, "y");
      const Tensor ax(h.device, {ins}, Dtype::f64), back(h.device, {outs}, Dtype::f64);
      h.ranks.all_to_all(buffer(x), out, buffer(ax), in, h.stream);
      h.ranks.all_to_all(buffer(y), in, buffer(back), out, h.stream);
      return Products{dot(ax, y), dot(x, back)};
    });
  }
}

// A model whose vocabulary the ranks do not divide, cut by tensor parallelism.
class Vocabulary {
 public:
  explicit Vocabulary(Here& h)
      : model_(config(h.ranks.size())),
        parallel_(model_, h.ranks),
        store_(h.device, parallel_.shard(parameters_of(model_, whole_model(model_))), Dtype::f64),
        source_(store_),
        transformer_(model_, store_, whole_model(model_), parallel_.boundaries()),
        batch_(to_device(h.device, some_rows(model_.vocabulary))),
        rows_(batch_.sequences * batch_.length / h.ranks.size()),
        here_(h) {
    store_.initialise(1);
  }
  Tape tape() { return Tape(here_.stream, source_, Tape::Mode::training); }

  Products embedding() {
    Tape t = tape();
    LayerContext context{.tape = t, .batch = batch_};
    const Value x = transformer_.embed(context).stream;
    const Tensor y = here_.own(x.tensor().shape(), "y");
    t.seed(x, y);
    t.backward();
    const Param& table = store_.param("embedding.weight");
    return {dot(x.tensor(), y), dot(store_.weight(table), store_.gradient(table))};
  }
  // Along a direction of the residual stream and of the head's matrix.
  Products loss() {
    const Param& head = store_.param("head.weight");
    const Tensor x = here_.own({rows_, model_.hidden}, "x"), dx = here_.own(x.shape(), "dx");
    const Tensor w = store_.weight(head), dw = here_.own(w.shape(), "dw");
    const Tensor before = moved(w, w, 0);
    const auto at = [&](double step, Tensor* gradient) {
      const Tensor shifted = moved(before, dw, step);
      std::memcpy(w.raw(), shifted.raw(), w.bytes());
      Tape t = tape();
      LayerContext context{.tape = t, .batch = batch_};
      const Value leaf = t.leaf(moved(x, dx, step), true);
      const HeadLoss::Result r =
          transformer_.loss(context, {leaf, Value()}, {.loss_scale = 1, .z_loss = 1e-2});
      if (gradient != nullptr) {
        t.backward();
        *gradient = t.take_gradient(leaf);
      }
      return r.loss_sum + r.penalty_sum;
    };
    Tensor back;
    store_.zero_gradients();
    at(0, &back);
    const double backward = dot(dx, back) + dot(dw, store_.gradient(head));
    constexpr double step = 1e-5;
    const double slope = (at(step, nullptr) - at(-step, nullptr)) / (2 * step);
    return {here_.ranks.rank() == 0 ? slope : 0, backward};  // all ranks have the whole loss
  }

 private:
  static ModelConfig config(int ranks) {
    ModelConfig m = small_model();
    m.heads = m.kv_heads = 24;
    m.head_dim = 2;
    m.ffn = 48;
    m.layers = 1;
    m.vocabulary = 50 + ranks;
    m.embedding_multiplier = 1.5;
    return m;
  }
  ModelConfig model_;
  TensorParallel parallel_;
  ParamStore store_;
  StoreSource source_;
  Transformer transformer_;
  BatchTensors batch_;
  int64_t rows_;
  Here& here_;
};

TEST(Adjoints, OfTheVocabulary) {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    expect_adjoint("embedding", ranks, [](Here& h) { return Vocabulary(h).embedding(); });
    expect_adjoint(
        "loss", ranks, [](Here& h) { return Vocabulary(h).loss(); }, 1e-7);
  }
}

// Each stage a matrix of its own shape for every micro-batch: the pipeline is their product.
class LinearStages : public StageWork {
 public:
  LinearStages(Here& h, const Placement& where) : here_(h), where_(where) {}

  Boundary boundary(int stage, int micro) override {
    return {.shape = {columns(stage, micro)}, .dtype = Dtype::f64};
  }
  Tensor forward(int stage, int micro, const Tensor& input) override {
    const Tensor x = stage == 0 ? end("x", 0, micro) : input;
    const Tensor ax = product(matrix(stage, micro), x, false);
    if (stage + 1 < where_.stages()) return ax;
    products.forward += dot(ax, end("y", where_.stages(), micro));
    return {};
  }
  Tensor backward_input(int stage, int micro, const Tensor& gradient) override {
    const bool last = stage + 1 == where_.stages();
    const Tensor y = last ? end("y", where_.stages(), micro) : gradient;
    const Tensor back = product(matrix(stage, micro), y, true);
    if (stage > 0) return back;
    products.backward += dot(end("x", 0, micro), back);
    return {};
  }
  void backward_weight(int, int) override {}

  Products products;

 private:
  static int64_t columns(int stage, int micro) { return 1 + (2 * stage + micro) % 4; }
  Tensor end(const std::string& name, int stage, int micro) {
    return here_.alike({columns(stage, micro)}, cat(name, micro));
  }
  Tensor matrix(int stage, int micro) {
    return here_.alike({columns(stage + 1, micro), columns(stage, micro)},
                       cat("stage ", stage, " ", micro));
  }
  Tensor product(const Tensor& m, const Tensor& x, bool transposed) {
    const int64_t rows = m.rows(), n = m.columns();
    Tensor y(here_.device, {transposed ? n : rows}, Dtype::f64);
    std::ranges::fill(y.span<double>(), 0);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        y.data<double>()[transposed ? j : i] +=
            m.data<double>()[i * n + j] * x.data<double>()[transposed ? i : j];
      }
    }
    return y;
  }
  Here& here_;
  const Placement& where_;
};

TEST(Adjoints, OfThePipelinesTransfers) {
  for (const ScheduleEntry& entry : schedule_entries()) {
    for (const int ranks : {2, 3, 4}) {
      if (entry.name == "dualpipe" && ranks % 2 == 1) continue;
      const Schedule s =
          add_transfers(make_schedule({.name = entry.name, .ranks = ranks, .micros = 2 * ranks}));
      expect_adjoint(entry.name, ranks, [&](Here& h) {
        PipelineEngine engine(h.ranks, h.stream, s);
        LinearStages work(h, s.where);
        engine.run(work);
        return work.products;
      });
    }
  }
}

}  // namespace
}  // namespace shoestring

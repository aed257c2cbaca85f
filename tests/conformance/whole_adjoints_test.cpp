// Of whole layers and of what lies below the ops: collectives, the vocabulary cut by tensor
// parallelism and the transfers of a pipeline are adjoints too.

#include "core/model/transformer.h"
#include "parallel/passes.h"
#include "parallel/pipeline_engine.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/tensor_parallel.h"
#include "tests/conformance/adjoint_case.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

// Parts of unequal size, some of them empty.
std::vector<int64_t> uneven(int ranks) {
  std::vector<int64_t> counts;
  for (int r = 0; r < ranks; ++r) counts.push_back(r % 3 == 1 ? 0 : 2 + 3 * r);
  return counts;
}

TEST(WholeAdjoints, OfTheCollectivesUnderThem) {
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
        parallel_(model_, h.ranks, h.device, 0),
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

TEST(WholeAdjoints, OfTheVocabulary) {
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

TEST(WholeAdjoints, OfThePipelinesTransfers) {
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

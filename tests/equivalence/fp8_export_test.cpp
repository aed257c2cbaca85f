// A DeepSeek-V3 look-alike as an FP8 folder (`export --fp8`): every weight of a matrix of whole
// blocks is the nearest code of its block, the others are as they were, folders come back bit for
// bit, and what the weights' rounding does to the logits, with the router's choices free and held
// to those of the unrounded model.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "core/model/transformer.h"
#include "core/random.h"
#include "io/hugging_face/fp8_choice.h"
#include "io/hugging_face/names.h"
#include "io/safetensors.h"
#include "launcher/export_command.h"
#include "launcher/import_command.h"
#include "launcher/loaded_model.h"
#include "nlohmann/json.hpp"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

// configs/models/mini-deepseek-v3.toml, which the tests read nothing from, with fewer ids.
RunConfig mini_config(const ScratchFolder& folder) {
  RunConfig c = small_config(folder, "run");
  c.model.layers = 4;
  c.model.hidden = 256;
  c.model.ffn = 704;
  c.model.kv_heads = 4;
  c.model.mla = {.kv_latent = 64, .q_latent = 96, .nope_dim = 32, .rope_dim = 16, .v_dim = 32};
  c.model.moe.experts = 16;
  c.model.moe.chosen = 4;
  c.model.moe.ffn = 128;
  c.model.moe.shared = 1;
  c.model.moe.first_dense = 1;
  c.model.moe.scores = "sigmoid";
  c.model.moe.groups = 4;
  c.model.moe.groups_chosen = 2;
  c.model.moe.scaling = 2.5;
  c.model.moe.balance.bias_speed = 0.001;
  c.model.mtp.depth = 1;
  c.train.steps = 1;  // its choices are those of a model that begins
  c.train.evaluate_sequences = 0;
  return c;
}

// The run, and its exports in f32 and in FP8.
struct Folders {
  Folders() {
    train_small(config);
    run_export({.model = config.run.directory, .out = plain, .dtype = "f32"});
    run_export({.model = config.run.directory, .out = narrow, .dtype = "f32", .fp8 = true});
  }
  ScratchFolder scratch;
  RunConfig config = mini_config(scratch);
  std::string plain = scratch / "plain", narrow = scratch / "narrow";
};

std::vector<float> values_of(const SafetensorsFile& file, const std::string& name) {
  std::vector<float> values(static_cast<size_t>(file.entry(name).elements()));
  file.read(name, 0, file.entry(name).elements(), Dtype::f32,
            reinterpret_cast<std::byte*>(values.data()));
  return values;
}

// Half of the distance between two codes around x.
double half_step(double x) {
  int exponent = 0;
  std::frexp(std::abs(x), &exponent);  // x = [1/2, 1) 2^exponent
  return std::ldexp(1.0, std::max(exponent - 1, -6) - 4);
}

TEST(Fp8Export, EveryWeightIsTheNearestCodeOfItsBlock) {
  const Folders f;
  const SafetensorsFile plain(f.plain + "/model.safetensors"),
      narrow(f.narrow + "/model.safetensors");
  const ModelSource source(f.narrow);
  const Fp8Choice choice({.family = ModelFamily::deepseek_v3,
                          .model = source.model(),
                          .blocks = {.rows = 128, .columns = 128}});
  size_t matrices = 0;
  for (const FolderTensor& t : folder_tensors(ModelFamily::deepseek_v3, source.model())) {
    const std::vector<float> want = values_of(plain, t.name);
    if (!choice.is_fp8(t)) {
      EXPECT_EQ(values_of(narrow, t.name), want) << t.name;
      continue;
    }
    ++matrices;
    const std::vector<float> scales = values_of(narrow, t.scale_name());
    const int64_t columns = t.shape[1], blocks = (columns + 127) / 128;
    std::vector<float> got(want.size());
    source.read(t.parameter, t.begin, t.begin + t.elements(), Dtype::f32,
                reinterpret_cast<std::byte*>(got.data()));
    for (int64_t i = 0; i < t.elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      const double scale =
          scales[static_cast<size_t>(i / columns / 128 * blocks + i % columns / 128)];
      const double limit = half_step(want[at] / scale) * scale;
      ASSERT_LE(std::abs(double{got[at]} - want[at]), limit * (1 + 1e-6)) << t.name << " " << i;
    }
  }
  // Of each block the attention's output; gate, up, down of 16 experts and of the shared one. The
  // latents' matrices (of 96, 192, 80 rows and of 64 columns) and the dense mlp's (704) stay.
  EXPECT_EQ(matrices, size_t{5 + 4 * 17 * 3});
  EXPECT_EQ(choice.plain(), 5 * 4 + 3);
}

TEST(Fp8Export, ComesBackBitForBit) {
  const Folders f;
  run_import({.folder = f.narrow, .out = f.scratch / "imported"});
  run_export(
      {.model = f.scratch / "imported", .out = f.scratch / "again", .dtype = "f32", .fp8 = true});
  EXPECT_EQ(read_file(f.narrow + "/model.safetensors"),
            read_file(f.scratch / "again/model.safetensors"));
  // The balance loss is no part of a folder's model.
  auto config = nlohmann::json::parse(read_file(f.narrow + "/config.json")),
       again = nlohmann::json::parse(read_file(f.scratch / "again/config.json"));
  config.erase("aux_loss_alpha");
  again.erase("aux_loss_alpha");
  EXPECT_EQ(config, again);
}

// What the routers of a pass chose, in the order of the layers, and what they were given.
struct Choices {
  std::vector<Tensor> inputs, ids, gates;
};

// All experts are here; with `held` their rows and gates are those of another pass.
class ChoosingExchange : public TokenExchange {
 public:
  explicit ChoosingExchange(const Choices* held) : held_(held) {}
  DispatchedTokens dispatch(Tape& tape, const Value& x, const Routing& routing) override {
    own.inputs.push_back(x.tensor());
    own.ids.push_back(routing.ids.tensor());
    own.gates.push_back(routing.gates.tensor());
    return local_.dispatch(tape, x, chosen(routing));
  }
  Value combine(Tape& tape, const Value& rows, const DispatchedTokens& sent,
                const Routing& routing) override {
    return local_.combine(tape, rows, sent, chosen(routing));
  }
  Choices own;

 private:
  Routing chosen(Routing routing) const {
    if (held_ == nullptr) return routing;
    const size_t layer = own.ids.size() - 1;
    routing.ids = Value(held_->ids.at(layer));
    routing.gates = Value(held_->gates.at(layer));
    return routing;
  }
  const Choices* held_;
  LocalExchange local_;
};

struct Pass {
  std::vector<float> logits;
  Choices choices;
};

MicroBatch random_rows() {
  constexpr int64_t rows = 4, length = 64;
  MicroBatch m{.sequences = rows, .length = length};
  const RandomStream random(5, "ids");
  for (uint64_t i = 0; i < rows * length; ++i) {
    m.tokens.push_back(static_cast<int32_t>(random.below(i, small_vocabulary)));
    m.labels.push_back(-1);
    m.positions.push_back(static_cast<int32_t>(i % length));
    m.first_key.push_back(0);
  }
  return m;
}

Pass pass_of(LoadedModel& loaded, const Choices* held) {
  const BatchTensors tensors = to_device(loaded.device, random_rows());
  Tape tape(loaded.stream, *loaded.source, Tape::Mode::inference);
  ChoosingExchange exchange(held);
  LayerContext context{.tape = tape, .batch = tensors, .tokens = &exchange};
  std::vector<int64_t> rows(static_cast<size_t>(tensors.tokens.elements()));
  std::iota(rows.begin(), rows.end(), 0);
  const Residual x = loaded.model->run_blocks(context, loaded.model->embed(context));
  const Tensor logits = loaded.model->logits(context, x, rows);
  return {{logits.span<float>().begin(), logits.span<float>().end()}, std::move(exchange.own)};
}

// Of b - a, in deviations of a.
struct Moved {
  double root_mean_square = 0, worst = 0;
};
Moved moved(std::span<const float> a, std::span<const float> b) {
  double sum = 0, squares = 0, differences = 0, worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = double{b[i]} - a[i];
    sum += a[i];
    squares += double{a[i]} * a[i];
    differences += difference * difference;
    worst = std::max(worst, std::abs(difference));
  }
  const auto n = static_cast<double>(a.size());
  const double deviation = std::sqrt(squares / n - sum / n * (sum / n));
  return {std::sqrt(differences / n) / deviation, worst / deviation};
}

// The share of tokens to which a layer gives other experts.
double flipped(const Tensor& a, const Tensor& b) {
  int64_t tokens = 0;
  for (int64_t t = 0; t < a.rows(); ++t) {
    const auto left = a.rows(t, t + 1).span<int32_t>(), right = b.rows(t, t + 1).span<int32_t>();
    tokens += std::set(left.begin(), left.end()) != std::set(right.begin(), right.end());
  }
  return static_cast<double>(tokens) / static_cast<double>(a.rows());
}

// docs/fp8.md has the figures that this prints.
TEST(Fp8Export, MovesLogitsMostlyByOtherExperts) {
  const Folders f;
  LoadedModel plain({.path = f.plain, .dtype = "f32", .threads = 1});
  LoadedModel narrow({.path = f.narrow, .dtype = "f32", .threads = 1});
  const Pass want = pass_of(plain, nullptr);
  const Pass itself = pass_of(plain, &want.choices);
  EXPECT_EQ(itself.logits, want.logits);
  const Pass free = pass_of(narrow, nullptr), held = pass_of(narrow, &want.choices);
  double flips = 0;
  for (size_t layer = 0; layer < want.choices.ids.size(); ++layer) {
    const auto given = [&](const Pass& p) {
      return moved(want.choices.inputs[layer].span<float>(), p.choices.inputs[layer].span<float>());
    };
    const double here = flipped(want.choices.ids[layer], free.choices.ids[layer]);
    flips += here / static_cast<double>(want.choices.ids.size());
    std::printf("sparse layer %zu: input moves %.4f deviations, held %.4f; other experts %.3f\n",
                layer, given(free).root_mean_square, given(held).root_mean_square, here);
  }
  const Moved all = moved(want.logits, free.logits), rounding = moved(want.logits, held.logits);
  std::printf("logits: free %.4f (worst %.3f), held %.4f (worst %.3f)\n", all.root_mean_square,
              all.worst, rounding.root_mean_square, rounding.worst);
  EXPECT_GT(flips, 0.02);
  EXPECT_LT(rounding.root_mean_square, 0.1);
  EXPECT_GT(all.worst, 1.5 * rounding.worst);
}

}  // namespace
}  // namespace shoestring

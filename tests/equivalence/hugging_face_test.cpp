// The judge of every family: the same weights and ids give transformers' logits and gradients.
// tests/data/make_hf_goldens.py made the folders; what they vary stands there.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/model/transformer.h"
#include "io/hugging_face/names.h"
#include "io/safetensors.h"
#include "launcher/export_command.h"
#include "launcher/model_source.h"
#include "nlohmann/json.hpp"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

// Of the logits' deviation, and of a gradient's norm.
constexpr double logit_tolerance = 2e-4, gradient_tolerance = 1e-4;

std::string golden_folder(const std::string& name) {
  return cat(SHOESTRING_SOURCE_DIR, "/tests/data/hf/", name);
}

// In f32, without the losses that balance experts: they are no part of the judge's.
struct GoldenModel {
  explicit GoldenModel(const std::string& name) : from(golden_folder(name)), config(from.model()) {
    config.moe.balance = {};
    const Chunk chunk = whole_model(config);
    store = std::make_unique<ParamStore>(device, parameters_of(config, chunk), Dtype::f32);
    source = std::make_unique<StoreSource>(*store);
    model = std::make_unique<Transformer>(config, *store, chunk);
    from.restore(*store, "");
  }
  ModelSource from;
  ModelConfig config;
  Device device{DeviceKind::cpu, 0, 2};
  Stream stream = Stream::immediate(device);
  std::unique_ptr<ParamStore> store;
  std::unique_ptr<StoreSource> source;
  std::unique_ptr<Transformer> model;
};

template <class T>
std::vector<T> values_of(const SafetensorsFile& file, const std::string& name) {
  std::vector<T> values(static_cast<size_t>(file.entry(name).elements()));
  file.read(name, 0, file.entry(name).elements(), dtype_of<T>,
            reinterpret_cast<std::byte*>(values.data()));
  return values;
}

// Both rows in one micro-batch; each label is the next id, the last has none.
MicroBatch batch_of(const std::vector<int32_t>& ids, int64_t rows) {
  const auto length = static_cast<int64_t>(ids.size()) / rows;
  MicroBatch m{.sequences = rows, .length = length, .tokens = ids};
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto t = static_cast<int64_t>(i) % length;
    m.labels.push_back(t + 1 < length ? ids[i + 1] : -1);
    m.positions.push_back(static_cast<int32_t>(t));
    m.first_key.push_back(0);
    m.valid_labels += t + 1 < length ? 1 : 0;
  }
  return m;
}

class Goldens : public ::testing::TestWithParam<const char*> {};

TEST_P(Goldens, LogitsEqualThoseOfTransformers) {
  GoldenModel loaded(GetParam());
  const SafetensorsFile golden(golden_folder(GetParam()) + "/golden.safetensors");
  const std::vector<int32_t> ids = values_of<int32_t>(golden, "ids");
  const std::vector<float> want = values_of<float>(golden, "logits");
  const BatchTensors tensors = to_device(loaded.device, batch_of(ids, 2));
  Tape tape(loaded.stream, *loaded.source, Tape::Mode::inference);
  LayerContext context{.tape = tape, .batch = tensors};
  std::vector<int64_t> rows(ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  const Residual x = loaded.model->run_blocks(context, loaded.model->embed(context));
  const Tensor logits = loaded.model->logits(context, x, rows);
  const auto got = logits.span<float>();
  ASSERT_EQ(got.size(), want.size());
  double sum = 0, squares = 0, worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    sum += want[i];
    squares += double{want[i]} * want[i];
    worst = std::max(worst, std::abs(double{got[i]} - want[i]));
  }
  const auto n = static_cast<double>(want.size());
  const double deviation = std::sqrt(squares / n - sum / n * (sum / n));
  EXPECT_GT(deviation, 0.1) << "a model that says nothing";
  EXPECT_LE(worst, logit_tolerance * deviation);
}

const char* const dense_models[] = {
    "llama", "llama_gqa_llama3", "llama_linear", "llama_yarn", "mistral_window",
    "qwen2", "qwen2_tied",       "qwen3",        "qwen3_fp8"};
INSTANTIATE_TEST_SUITE_P(Dense, Goldens, ::testing::ValuesIn(dense_models),
                         [](const auto& info) { return std::string(info.param); });

const char* const sparse_models[] = {
    "qwen3_moe",   "qwen3_moe_sparse_step", "mixtral",         "deepseek_v2", "deepseek_v2_lite",
    "deepseek_v3", "deepseek_v3_mtp",       "deepseek_v3_fp8", "moonlight",   "deepseek_v3_mtp3"};
INSTANTIATE_TEST_SUITE_P(Sparse, Goldens, ::testing::ValuesIn(sparse_models),
                         [](const auto& info) { return std::string(info.param); });

// +1 or -1 for element i of projection k, as the script draws them.
double sign_of(uint64_t i, uint64_t k) {
  uint64_t x = (i * 4 + k + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return (x ^ (x >> 31)) >> 63 ? 1.0 : -1.0;
}

class GoldenGradients : public ::testing::TestWithParam<const char*> {};

// A gradient that differs by e changes a projection on random signs by about the norm of e.
TEST_P(GoldenGradients, EqualThoseOfTransformers) {
  GoldenModel loaded(GetParam());
  const auto facts =
      nlohmann::json::parse(read_file(golden_folder(GetParam()) + "/gradients.json"));
  const SafetensorsFile golden(golden_folder(GetParam()) + "/golden.safetensors");
  const MicroBatch micro = batch_of(values_of<int32_t>(golden, "ids"), 2);
  const BatchTensors tensors = to_device(loaded.device, micro);
  loaded.store->zero_gradients();
  Tape tape(loaded.stream, *loaded.source, Tape::Mode::training);
  LayerContext context{.tape = tape, .batch = tensors};
  const double scale = 1.0 / static_cast<double>(micro.valid_labels);
  std::vector<PredictionResult> modules;
  const HeadLoss::Result result =
      loaded.model->run(context, {.loss_scale = scale, .predictions = &modules});
  EXPECT_NEAR(result.loss_sum * scale, facts["loss"].get<double>(), 1e-5);
  ASSERT_EQ(modules.size(), static_cast<size_t>(loaded.config.mtp.depth));
  for (size_t k = 0; k < modules.size(); ++k) {
    EXPECT_NEAR(modules[k].loss_sum, facts["module_loss_sums"].at(k).get<double>(), 1e-3) << k;
    EXPECT_EQ(modules[k].agreed, facts["module_agreed"].at(k).get<int64_t>()) << k;
  }
  tape.backward();
  const ModelFamily family = loaded.from.folder()->config().family;
  size_t compared = 0;
  for (const FolderTensor& t : folder_tensors(family, loaded.config)) {
    if (t.name.ends_with("e_score_correction_bias")) continue;  // no gradient reaches it
    ASSERT_TRUE(facts["gradients"].contains(t.name)) << t.name;
    const auto want = facts["gradients"][t.name].get<std::vector<double>>();
    const Param& p = loaded.store->param(t.parameter);
    const float* got = loaded.store->gradient(p).data<float>() + t.begin;
    std::vector<double> have(want.size(), 0.0);
    for (int64_t i = 0; i < t.elements(); ++i) {
      have[0] += double{got[i]} * got[i];
      for (size_t k = 1; k < have.size(); ++k) {
        have[k] += got[i] * sign_of(static_cast<uint64_t>(i), k - 1);
      }
    }
    have[0] = std::sqrt(have[0]);
    for (size_t k = 0; k < want.size(); ++k) {
      EXPECT_NEAR(have[k], want[k], gradient_tolerance * want[0] + 1e-9) << t.name << " " << k;
    }
    ++compared;
  }
  EXPECT_EQ(compared, facts["gradients"].size());
}

const char* const dense_gradients[] = {"llama", "llama_gqa_llama3", "qwen2", "qwen3"};
INSTANTIATE_TEST_SUITE_P(Dense, GoldenGradients, ::testing::ValuesIn(dense_gradients),
                         [](const auto& info) { return std::string(info.param); });

const char* const sparse_gradients[] = {"qwen3_moe",   "mixtral",         "deepseek_v2",
                                        "deepseek_v3", "deepseek_v3_mtp", "deepseek_v3_mtp3"};
INSTANTIATE_TEST_SUITE_P(Sparse, GoldenGradients, ::testing::ValuesIn(sparse_gradients),
                         [](const auto& info) { return std::string(info.param); });

// A run that learned a selection bias and one that goes on from it without moving it: the weights
// still choose by the bias, which no softmax family knows.
TEST(HuggingFaceExport, RefusesASelectionBiasOfSoftmaxFamilies) {
  for (const bool qwen : {false, true}) {
    const ScratchFolder folder;
    RunConfig first = small_config(folder, "first");
    first.train.steps = 2;
    first.model.qk_norm = qwen;
    first.model.moe = {.experts = 4, .chosen = 2, .ffn = 16, .shift = 1};
    RunConfig plain = first, second = first;
    first.model.moe.balance.bias_speed = 0.1;
    train_small(first);
    second.run.directory = folder / "second";
    second.train.init_from = first.run.directory;
    train_small(second);
    plain.run.directory = folder / "plain";
    train_small(plain);
    expect_error(ExitCode::usage, {"model.moe.balance.bias_speed"},
                 [&] { run_export({.model = first.run.directory, .out = folder / "a"}); });
    expect_error(ExitCode::usage, {"moe.router.bias is not zero", "DeepSeek-V3"},
                 [&] { run_export({.model = second.run.directory, .out = folder / "b"}); });
    EXPECT_FALSE(std::filesystem::exists(folder / "b"));
    run_export({.model = plain.run.directory, .out = folder / "c"});
    EXPECT_EQ(ModelSource(folder / "c").model().moe.experts, 4);
  }
}

}  // namespace
}  // namespace shoestring

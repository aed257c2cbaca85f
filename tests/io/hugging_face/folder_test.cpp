#include "io/hugging_face/folder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/model/parameters.h"
#include "tests/io/hugging_face/folder_fixture.h"

namespace shoestring {
namespace {

std::vector<float> all_of(const HuggingFaceFolder& folder, const std::string& name,
                          int64_t elements) {
  std::vector<float> values(static_cast<size_t>(elements));
  folder.read(name, 0, elements, Dtype::f32, reinterpret_cast<std::byte*>(values.data()));
  return values;
}

TEST(HuggingFaceFolder, ReadsEveryFamilyUnderOurNames) {
  for (const auto& [family, model] : small_models()) {
    const ScratchFolder scratch;
    save_hugging_face(small_export(family), scratch.path());
    ASSERT_TRUE(HuggingFaceFolder::is_at(scratch.path()));
    const HuggingFaceFolder folder(scratch.path());
    EXPECT_EQ(folder.config().family, family);
    for (const ParamInfo& p : parameters_of(folder.config().model, whole_model(model))) {
      const int64_t n = p.shape.elements();
      const std::vector<float> values = all_of(folder, p.name, n);
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(values[static_cast<size_t>(i)], weight_at(p.name, i)) << p.name << " " << i;
      }
      EXPECT_EQ(folder.type_of(p.name), Dtype::bf16);
    }
    const std::string bias = selection_bias_name(model, 1);
    EXPECT_EQ(folder.has(bias), has_selection_bias(family));
    if (folder.has(bias)) {
      EXPECT_EQ(all_of(folder, bias, 8)[3], weight_at(bias, 3));
      EXPECT_EQ(folder.type_of(bias), Dtype::f32);
    }
  }
}

// A range may begin and end inside of any of the tensors that a fused parameter is made of.
TEST(HuggingFaceFolder, ReadsAnyRangeInEitherType) {
  const ScratchFolder scratch;
  save_hugging_face(small_export(ModelFamily::mixtral), scratch.path());
  const HuggingFaceFolder folder(scratch.path());
  const std::string name = "layers.1.moe.experts.gate_up.weight";
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 0},
                                   {5, 48 * 32 + 7},
                                   {3 * 48 * 32 - 1, 3 * 48 * 32 + 1},
                                   {8 * 48 * 32 - 9, 8 * 48 * 32}}) {
    std::vector<BFloat16> values(static_cast<size_t>(end - begin));
    folder.read(name, begin, end, Dtype::bf16, reinterpret_cast<std::byte*>(values.data()));
    for (int64_t i = begin; i < end; ++i) {
      EXPECT_EQ(static_cast<float>(values[static_cast<size_t>(i - begin)]), weight_at(name, i));
    }
  }
  std::byte out[8];
  EXPECT_THROW(folder.read(name, 8 * 48 * 32 - 1, 8 * 48 * 32 + 1, Dtype::f32, out), Error);
  EXPECT_THROW(folder.read("layers.9.mlp.down.weight", 0, 1, Dtype::f32, out), Error);
}

TEST(HuggingFaceFolder, ReadsBlocksTimesTheirScales) {
  const ScratchFolder scratch;
  HuggingFaceExport model = small_export(ModelFamily::deepseek_v3);
  make_coded(model.config);
  save_hugging_face(model, scratch.path());
  const HuggingFaceFolder folder(scratch.path());
  const SafetensorsFile file(scratch / "model.safetensors");
  const std::string down = "model.layers.1.mlp.experts.5.down_proj.weight";  // [32, 12]
  EXPECT_EQ(file.entry(down).type, "F8_E4M3");
  EXPECT_EQ(file.entry(down + "_scale_inv").shape, (std::vector<int64_t>{2, 1}));
  float scales[2];
  uint8_t codes[32 * 12];
  file.read(down + "_scale_inv", 0, 2, Dtype::f32, reinterpret_cast<std::byte*>(scales));
  file.read(down, 0, 32 * 12, Dtype::f8e4m3, reinterpret_cast<std::byte*>(codes));
  const std::vector<float> values = all_of(folder, "layers.1.moe.experts.down.weight", 8 * 32 * 12);
  for (size_t i = 0; i < 32 * 12; ++i) {
    Float8E4M3 code;
    code.bits = codes[i];
    EXPECT_EQ(values[5 * 32 * 12 + i], static_cast<float>(code) * scales[i / 12 / 16]);
  }
  // Embedding, head, norms, router and the module's projection stay as they are.
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
                           "model.layers.1.mlp.gate.weight", "model.layers.2.eh_proj.weight"}) {
    EXPECT_EQ(file.entry(name).type, "BF16") << name;
  }
}

void refused(ModelFamily family, const std::set<std::string>& drop,
             const std::map<std::string, std::vector<int64_t>>& add,
             const std::vector<std::string>& parts) {
  const ScratchFolder scratch;
  save_hugging_face(small_export(family), scratch.path());
  edit_tensors(scratch.path(), drop, add);
  expect_error(ExitCode::data, parts, [&] { HuggingFaceFolder folder(scratch.path()); });
}

TEST(HuggingFaceFolder, ListsWhatDoesNotFit) {
  using F = ModelFamily;
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  refused(F::llama, {q}, {}, {"no tensor fills", q, "[32, 32]", "layers.1.attention.qkv.weight"});
  refused(F::llama, {}, {{"model.layers.1.self_attn.q_norm.weight", {8}}},
          {"fill no parameter", "q_norm.weight [8]"});
  refused(F::llama, {q}, {{q, {32, 31}}}, {q, "is [32, 31] but should be [32, 32]"});
  refused(F::llama, {q}, {{"other", {1}}}, {"no tensor fills", "fill no parameter", "other"});
  // A module's block with a tensor too few is no file without the module.
  refused(F::deepseek_v3, {"model.layers.2.enorm.weight"}, {}, {"enorm.weight", "mtp.0"});
  // Copies that are none.
  refused(F::qwen2, {}, {{"lm_head.weight", {96, 32}}}, {"lm_head.weight", "tie_word_embeddings"});
  refused(F::deepseek_v3, {"model.layers.2.embed_tokens.weight"},
          {{"model.layers.2.embed_tokens.weight", {96, 32}}}, {"differs from model.embed_tokens"});
}

TEST(HuggingFaceFolder, ToleratesWhatFollowsFromTheRest) {
  const ScratchFolder scratch;
  save_hugging_face(small_export(ModelFamily::llama), scratch.path());
  edit_tensors(scratch.path(), {}, {{"model.layers.0.self_attn.rotary_emb.inv_freq", {4}}});
  const HuggingFaceFolder folder(scratch.path());
  EXPECT_EQ(folder.path(), scratch.path());
}

TEST(HuggingFaceFolder, LeavesOutModulesThatAreNotThere) {
  const ScratchFolder scratch;
  HuggingFaceExport model = small_export(ModelFamily::deepseek_v3);
  model.config.model.mtp.depth = 0;
  save_hugging_face(model, scratch.path());
  nlohmann::json config = nlohmann::json::parse(read_file(scratch / "config.json"));
  config["num_nextn_predict_layers"] = 1;
  write_file(scratch / "config.json", config.dump());
  EXPECT_EQ(HuggingFaceFolder(scratch.path()).config().model.mtp.depth, 0);
}

// Files that do not count their module, or count it by the name of transformers 5.
TEST(HuggingFaceFolder, FindsTheModuleThatIsThere) {
  const ScratchFolder scratch;
  save_hugging_face(small_export(ModelFamily::deepseek_v3), scratch.path());
  nlohmann::json config = nlohmann::json::parse(read_file(scratch / "config.json"));
  config.erase("num_nextn_predict_layers");
  write_file(scratch / "config.json", config.dump());
  EXPECT_EQ(HuggingFaceFolder(scratch.path()).config().model.mtp.depth, 1);
  config["num_mtp_layers"] = 1;
  write_file(scratch / "config.json", config.dump());
  EXPECT_EQ(HuggingFaceFolder(scratch.path()).config().model.mtp.depth, 1);
}

TEST(HuggingFaceFolder, RefusesBlocksWithoutScales) {
  const ScratchFolder scratch;
  HuggingFaceExport model = small_export(ModelFamily::llama);
  model.config.blocks = {.rows = 16, .columns = 16};
  save_hugging_face(model, scratch.path());
  const std::string scale = "model.layers.0.mlp.up_proj.weight_scale_inv";
  edit_tensors(scratch.path(), {scale}, {});
  expect_error(ExitCode::data, {scale, "missing"},
               [&] { HuggingFaceFolder folder(scratch.path()); });
  edit_tensors(scratch.path(), {}, {{scale, {3, 3}}});
  expect_error(ExitCode::data, {scale, "should be F32, BF16 or F16 [3, 2]"},
               [&] { HuggingFaceFolder folder(scratch.path()); });
}

// As Qwen3's FP8 folders have them: the numbers of the narrow type count, widened.
TEST(HuggingFaceFolder, ReadsScalesOfEveryFloat) {
  const std::string weight = "model.layers.0.mlp.up_proj.weight", scale = weight + "_scale_inv";
  for (const Dtype type : {Dtype::bf16, Dtype::f16}) {
    const ScratchFolder scratch;
    HuggingFaceExport model = small_export(ModelFamily::llama);
    make_coded(model.config);
    save_hugging_face(model, scratch.path());
    std::vector<RawTensor> tensors = raw_tensors(scratch.path());
    for (RawTensor& t : tensors) {
      if (t.spec.name != scale) continue;
      t.spec.dtype = type;
      const uint16_t bits[6] = {0x2c01, 0x3c00, 0x3555, 0x0401, 0x3fff, 0x2e66};
      t.bytes.assign(reinterpret_cast<const std::byte*>(bits),
                     reinterpret_cast<const std::byte*>(bits + 6));
    }
    write_raw_tensors(scratch.path(), tensors);
    const SafetensorsFile file(scratch / "model.safetensors");
    ASSERT_EQ(file.entry(scale).dtype, type);
    float narrow[6];  // [3, 2]
    file.read(scale, 0, 6, Dtype::f32, reinterpret_cast<std::byte*>(narrow));
    uint8_t codes[48 * 32];
    file.read(weight, 0, 48 * 32, Dtype::f8e4m3, reinterpret_cast<std::byte*>(codes));
    const HuggingFaceFolder folder(scratch.path());
    EXPECT_TRUE(folder.has_codes("layers.0.mlp.gate_up.weight"));
    EXPECT_FALSE(folder.has_codes("embedding.weight"));
    const std::vector<float> values = all_of(folder, "layers.0.mlp.gate_up.weight", 2 * 48 * 32);
    for (size_t i = 0; i < 48 * 32; ++i) {
      Float8E4M3 code;
      code.bits = codes[i];
      const size_t block = i / 32 / 16 * 2 + i % 32 / 16;
      ASSERT_EQ(values[48 * 32 + i], static_cast<float>(code) * narrow[block]) << i;
    }
  }
}

// Says which element of which tensor, wherever the range begins, and reads the rest.
TEST(HuggingFaceFolder, RefusesWeightsThatAreNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const auto& [value, text] : {std::pair<float, const char*>{std::nanf(""), "is nan"},
                                    {-std::nanf(""), "nan"},
                                    {inf, "is inf"},
                                    {-inf, "is -inf"}}) {
    const ScratchFolder scratch;
    save_hugging_face(small_export(ModelFamily::llama), scratch.path());
    const std::string k = "model.layers.1.self_attn.k_proj.weight";  // [16, 32]
    write_element(scratch.path(), k, 500, BFloat16(value));
    const HuggingFaceFolder folder(scratch.path());
    const std::string name = "layers.1.attention.qkv.weight";  // q has 32 rows
    std::vector<float> out(1024);
    const int64_t at = 32 * 32 + 500;
    for (const int64_t begin : {at - 500, at - 1, at}) {
      expect_error(ExitCode::data, {scratch.path(), "element 500 of " + k, "[16, 32]", text}, [&] {
        folder.read(name, begin, at + 1, Dtype::f32, reinterpret_cast<std::byte*>(out.data()));
      });
    }
    folder.read(name, at - 500, at, Dtype::f32, reinterpret_cast<std::byte*>(out.data()));
    folder.read(name, at + 1, at + 12, Dtype::bf16, reinterpret_cast<std::byte*>(out.data()));
  }
}

TEST(HuggingFaceFolder, RefusesScalesThatAreNone) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::string weight = "model.layers.1.mlp.experts.5.down_proj.weight";
  for (const float scale : {std::nanf(""), inf, 0.0f, -1.0f, -0.0f, 1e38f}) {
    const ScratchFolder scratch;
    HuggingFaceExport model = small_export(ModelFamily::deepseek_v3);
    make_coded(model.config);
    save_hugging_face(model, scratch.path());
    write_element(scratch.path(), weight + "_scale_inv", 1, scale);
    const HuggingFaceFolder folder(scratch.path());
    // A scale may be a number and its products none.
    const std::string what = scale == 1e38f ? weight + " [32, 12] is "
                                            : "element 1 of " + weight + "_scale_inv [2, 1] is ";
    expect_error(ExitCode::data, {scratch.path(), what},
                 [&] { all_of(folder, "layers.1.moe.experts.down.weight", 8 * 32 * 12); });
    EXPECT_EQ(all_of(folder, "layers.1.moe.experts.down.weight", 5 * 32 * 12).size(), 1920u);
  }
}

TEST(HuggingFaceFolder, RefusesTheCodeThatIsNoNumber) {
  const ScratchFolder scratch;
  HuggingFaceExport model = small_export(ModelFamily::llama);
  model.config.blocks = {.rows = 16, .columns = 16};
  save_hugging_face(model, scratch.path());
  write_element(scratch.path(), "model.layers.0.mlp.up_proj.weight", 7, uint8_t{0x7f});
  const HuggingFaceFolder folder(scratch.path());
  expect_error(ExitCode::data, {"element 7 of model.layers.0.mlp.up_proj.weight", "code"},
               [&] { all_of(folder, "layers.0.mlp.gate_up.weight", 2 * 48 * 32); });
}

// A scale without codes is a tensor that fills nothing.
TEST(HuggingFaceFolder, RefusesScalesBesidePlainWeights) {
  const ScratchFolder scratch;
  HuggingFaceExport model = small_export(ModelFamily::llama);
  model.config.blocks = {.rows = 16, .columns = 16};
  save_hugging_face(model, scratch.path());
  const std::string weight = "model.layers.0.mlp.up_proj.weight";
  edit_tensors(scratch.path(), {weight}, {{weight, {48, 32}}});
  expect_error(ExitCode::data, {"fill no parameter", weight + "_scale_inv"},
               [&] { HuggingFaceFolder folder(scratch.path()); });
  edit_tensors(scratch.path(), {weight + "_scale_inv"}, {});
  EXPECT_TRUE(HuggingFaceFolder(scratch.path()).has("layers.0.mlp.gate_up.weight"));
}

TEST(HuggingFaceFolder, ReadsDeepSeekWithoutSharedExperts) {
  for (const ModelFamily family : {ModelFamily::deepseek_v2, ModelFamily::deepseek_v3}) {
    const ScratchFolder scratch;
    HuggingFaceExport model = small_export(family);
    model.config.model.moe.shared = 0;
    save_hugging_face(model, scratch.path());
    EXPECT_EQ(HuggingFaceFolder(scratch.path()).config().model.moe.shared, 0);
    const std::string gate = "model.layers.1.mlp.shared_experts.gate_proj.weight";
    edit_tensors(scratch.path(), {gate}, {});  // without one it is the same model
    EXPECT_FALSE(HuggingFaceFolder(scratch.path()).has("layers.1.moe.shared.gate_up.weight"));
    edit_tensors(scratch.path(), {}, {{gate, {12, 32}}});
    expect_error(ExitCode::data, {"fill no parameter", gate},
                 [&] { HuggingFaceFolder folder(scratch.path()); });
  }
}

// transformers makes all later layers sparse and keeps the key; DeepSeek's own code follows it.
TEST(HuggingFaceFolder, FollowsTheTensorsWhereTheFrequencyDoesNot) {
  for (const int64_t every : {1, 2}) {
    const ScratchFolder scratch;
    HuggingFaceExport model = small_export(ModelFamily::deepseek_v3);
    model.config.model.layers = 4;
    model.config.model.moe.every = every;
    model.config.model.mtp.depth = 0;
    save_hugging_face(model, scratch.path());
    nlohmann::json config = nlohmann::json::parse(read_file(scratch / "config.json"));
    config["moe_layer_freq"] = 2;
    write_file(scratch / "config.json", config.dump());
    const HuggingFaceFolder folder(scratch.path());
    EXPECT_EQ(folder.config().model.moe.every, every);
    EXPECT_EQ(folder.has("layers.3.mlp.down.weight"), every == 2);
    EXPECT_EQ(folder.has("layers.3.moe.experts.down.weight"), every == 1);
  }
}

// Lists are not made for a config that invents a model.
TEST(HuggingFaceFolder, RefusesAConfigOfAnotherSizeAtOnce) {
  const ScratchFolder scratch;
  save_hugging_face(small_export(ModelFamily::mixtral), scratch.path());
  nlohmann::json config = nlohmann::json::parse(read_file(scratch / "config.json"));
  config["num_hidden_layers"] = 100000;
  config["num_local_experts"] = config["num_experts"] = 65536;
  write_file(scratch / "config.json", config.dump());
  expect_error(ExitCode::data, {"config.json", "tensors"},
               [&] { HuggingFaceFolder folder(scratch.path()); });
}

}  // namespace
}  // namespace shoestring

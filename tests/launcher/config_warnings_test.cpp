#include "launcher/config_warnings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "core/text.h"
#include "launcher/config.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

// All warnings of a config, a line each.
std::string warnings(const std::string& text, std::vector<std::string> overrides = {},
                     int64_t ranks = 1) {
  const ScratchFolder folder;
  const std::string file = folder / "run.toml";
  write_file(file, text);
  const auto config = read_config<RunConfig>({.file = file, .overrides = std::move(overrides)});
  std::string list;
  for (const std::string& warning : config_warnings(config, ranks, config.set_at)) {
    const bool in_file = warning.starts_with(file);
    append(list, in_file ? "run.toml" : "", in_file ? warning.substr(file.size()) : warning, "\n");
  }
  return list;
}

TEST(ConfigWarnings, NameThePlaceTheValueAndTheReason) {
  EXPECT_EQ(warnings("[optim]\nstochastic_rounding = true\n"),
            "run.toml:2:23: optim.stochastic_rounding = true has no effect: optim.moments and "
            "train.dtype are f32, so nothing is rounded to bf16\n");
  EXPECT_EQ(warnings("", {"optim.muon.steps=4"}),
            "--set #1: optim.muon.steps = 4 has no effect: optim.optimizer is \"adamw\"\n");
  for (const char* with : {"moments = 'bf16'\n", "[train]\ndtype = 'bf16'\n"}) {
    EXPECT_EQ(warnings(cat("[optim]\nstochastic_rounding = true\n", with)), "") << with;
  }
  EXPECT_EQ(warnings("[optim]\noptimizer = 'muon'\n[optim.muon]\nsteps = 4\n"), "");
}

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> list;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    list.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return list;
}

// A key has no effect with the overrides `without`, and one with those in `with`.
struct Case {
  std::string key, value, without, with;
};
std::vector<Case> cases() {
  const std::string moe = "model.moe.experts=4 model.moe.ffn=8";
  const std::string dog = "precision.watchdog.every=5", fp8 = "precision.recipe=mxfp8";
  return {
      {"train.sample_prompt", "It was", "", "train.sample_every=9 tokenizer=t.json"},
      {"train.sample_tokens", "9", "", "train.sample_every=9 train.sample_prompt=A tokenizer=t"},
      {"train.evaluate_every", "9", "train.evaluate_sequences=0", ""},
      {"checkpoint.memory_limit_gb", "2", "checkpoint.every=0", ""},
      {"checkpoint.memory_limit_gb", "2", "checkpoint.background=false", ""},
      {"checkpoint.background", "false", "checkpoint.every=0", ""},
      {"cost.chips", "2", "", "cost.price_per_hour=0.1"},
      {"cost.currency", "EUR", "", "cost.price_per_hour=0.1"},
      {"model.head_dim", "16", "model.mla.kv_latent=32", ""},
      {"model.kv_heads", "1", "model.mla.kv_latent=32", ""},
      {"model.mla.v_dim", "64", "", "model.mla.kv_latent=32"},
      {"model.moe.chosen", "1", "", moe},
      {"model.moe.group_score", "max", moe, moe + " model.moe.groups=2"},
      {"model.moe.balance.bias_speed", "0.1", "", moe},
      {"model.mtp.weight", "0.1", "", "model.mtp.depth=1"},
      {"model.init.head", "0.1", "model.tied_embeddings=true", ""},
      {"model.lr_multipliers.bias", "2", "", "model.qkv_bias=true"},
      {"model.rope.beta_fast", "20", "", "model.rope.scaling=yarn"},
      {"model.rope.low_freq_factor", "2", "model.rope.scaling=yarn", "model.rope.scaling=llama3"},
      {"model.rope.original_max_positions", "99", "model.rope.scaling=linear",
       "stages=[{rope_scaling='yarn'}]"},
      {"precision.activation_tile", "1x32", "", fp8},
      {"precision.accumulator_bits", "9", fp8, fp8 + " precision.accumulator=hopper"},
      {"precision.watchdog.limit", "0.5", fp8, cat(fp8, " ", dog)},
      {"precision.watchdog.strikes", "2", cat(fp8, " ", dog, " precision.watchdog.limit=0"),
       cat(fp8, " ", dog)},
      {"optim.skip.window", "64", "", "optim.skip.norm_z=4"},
      {"optim.skip.norm_z", "4", "train.steps=128", "train.steps=129"},
      {"optim.schedule.total", "1000", "optim.schedule.kind=constant", ""},
      {"optim.schedule.min_ratio", "0.2", "optim.schedule.kind=multi_step", ""},
      {"optim.schedule.decay_shape", "linear", "", "optim.schedule.kind=wsd"},
      {"optim.schedule.factors", "[0.5, 0.5]", "", "optim.schedule.kind=multi_step"},
      {"optim.schedule.final_ratio", "0.5", "", "optim.schedule.kind=deepseek_v3"},
      {"data.held_out", "0.5", "data.sources=[{path='a',held_out=0.1}]",
       "data.sources=[{path='a'}]"},
  };
}

std::vector<Case> cases_of_fp8() {
  const std::string moe = "model.moe.experts=4 model.moe.ffn=8", fp8 = "precision.recipe=mxfp8";
  const std::string v3 = "precision.recipe=deepseek_v3", tensor = "precision.recipe=per_tensor";
  const std::string exact = " precision.accumulator=exact", no_fprop = " precision.fprop=false",
                    no_dgrad = " precision.dgrad=false", no_wgrad = " precision.wgrad=false",
                    turned = " precision.gradient_tile=tensor";
  return {
      {"precision.promotion", "0", v3 + exact, tensor + exact},
      {"precision.promotion", "256", v3, tensor + exact},
      {"precision.promotion", "512", tensor, v3 + exact + " precision.weight_tile=tensor" + turned},
      {"precision.promotion", "64", fp8 + exact, v3},
      {"precision.copy", "full", v3 + no_wgrad, v3},
      {"precision.attention_output_copy", "full", v3 + no_wgrad, v3 + no_fprop + no_dgrad},
      {"precision.gradient_tile", "128x128", v3 + no_dgrad + no_wgrad, v3 + no_dgrad},
      {"precision.gradient_format", "e5m2", v3 + no_dgrad + no_wgrad, v3 + no_wgrad},
      {"precision.weight_scales", "power_of_two", v3 + no_fprop + no_dgrad, v3 + no_fprop},
      {"precision.activation_scales", "power_of_two",
       v3 + no_fprop + no_wgrad + " precision.swiglu_inputs=full", v3 + no_fprop + no_wgrad},
      {"precision.attention_output_scales", "plain", v3 + no_fprop + no_wgrad, v3 + no_fprop},
      {"precision.dispatch_scales", "plain", v3, cat(v3, " ", moe)},
      {"precision.watchdog.every", "9", v3 + " train.steps=8", v3 + " train.steps=9"},
      {"precision.watchdog.limit", "0.5", v3 + " precision.watchdog.every=9 train.steps=8",
       v3 + " precision.watchdog.every=9 train.steps=9"},
  };
}

TEST(ConfigWarnings, EverySettingThatAnotherTurnsOff) {
  std::vector<Case> list = cases();
  for (Case& c : cases_of_fp8()) list.push_back(std::move(c));
  for (const Case& c : list) {
    std::vector<std::string> without = words(c.without), with = words(c.with);
    const std::string setting = cat(c.key, "=", c.value), said = cat(c.key, " = ");
    without.push_back(setting);
    with.push_back(setting);
    EXPECT_NE(warnings("", without).find(cat("--set #", without.size(), ": ", said)),
              std::string::npos)
        << setting << " with " << c.without;
    EXPECT_EQ(warnings("", with).find(said), std::string::npos) << setting << " with " << c.with;
  }
}

// What --set turned off rests in the file; what --set itself asks for is told of.
TEST(ConfigWarnings, AFeatureThatAnOverrideTurnsOffDrawsNone) {
  const std::string file = "[optim.skip]\nloss_z = 4\nwindow = 32\n";
  EXPECT_EQ(warnings(file), "");
  EXPECT_EQ(warnings(file, {"optim.skip.loss_z=0"}), "");
  EXPECT_EQ(warnings(file, {"optim.skip.loss_z=0", "optim.skip.window=16"}),
            "--set #2: optim.skip.window = 16 has no effect: optim.skip.loss_z and "
            "optim.skip.norm_z are 0: no step is skipped\n");
  EXPECT_EQ(warnings("[optim.skip]\nloss_z = 0\nwindow = 32\n", {"optim.lr=0.1"}),
            "run.toml:3:10: optim.skip.window = 32 has no effect: optim.skip.loss_z and "
            "optim.skip.norm_z are 0: no step is skipped\n");
}

TEST(ConfigWarnings, SkippingThatNeverBegins) {
  EXPECT_EQ(warnings("[train]\nsteps = 100\n[optim.skip]\nloss_z = 4\n"),
            "run.toml:4:10: optim.skip.loss_z = 4.0 has no effect: the first optim.skip.window = "
            "128 steps are never skipped, and the run ends after train.steps = 100\n");
}

// The default of kv_heads is no plain 0: who writes it beside latent attention means something.
TEST(ConfigWarnings, KeyHeadsBesideLatentAttention) {
  const std::string latent = "[model]\nheads = 4\nmla = {kv_latent = 32}\n";
  EXPECT_EQ(warnings(latent), "");
  EXPECT_EQ(warnings(latent + "kv_heads = 4\n"), "");
  EXPECT_EQ(warnings(latent + "kv_heads = 2\n"),
            "run.toml:4:12: model.kv_heads = 2 has no effect: model.mla.kv_latent > 0: in latent "
            "attention each of model.heads has its own key and value\n");
}

TEST(ConfigWarnings, ExpertsThatNoLayerHas) {
  const std::string experts = "[model]\nlayers = 3\n[model.moe]\nexperts = 4\nffn = 8\n";
  const std::string none = "none of the 3 layers has experts, so model.moe has no effect: ";
  EXPECT_EQ(warnings(experts + "first_dense = 2\n"), "");
  EXPECT_EQ(warnings(experts + "first_dense = 3\n"),
            "run.toml:6:15: " + none +
                "model.moe.first_dense = 3, model.moe.every = 1, model.moe.shift = 0\n");
  EXPECT_EQ(warnings(experts + "every = 3\nshift = 1\n"), "");  // the last layer
  EXPECT_EQ(warnings(experts + "first_dense = 1\nevery = 4\n").find("run.toml:6:15: " + none), 0u);
  EXPECT_EQ(warnings(experts + "scaling = 0\n"),
            "run.toml:6:11: model.moe.scaling = 0 multiplies the gates by 0: routed experts add "
            "nothing and learn nothing\n");
}

TEST(ConfigWarnings, RecipesThatLeaveNothingInFp8) {
  const std::string run = "[model]\nlayers = 3\n[precision]\nrecipe = 'deepseek_v3'\n";
  const std::string nothing =
      "precision.recipe = \"deepseek_v3\" multiplies nothing in FP8 in any of the 3 layers: ";
  EXPECT_EQ(warnings(run), "");
  EXPECT_EQ(warnings(run + "first_layers_bf16 = 2\n"), "");
  EXPECT_EQ(warnings(run + "first_layers_bf16 = 50\n"),
            "run.toml:5:21: " + nothing +
                "precision.first_layers_bf16 = 50, precision.last_layers_bf16 = 0 and "
                "precision.keep_bf16 leave none\n");
  EXPECT_EQ(warnings(run + "first_layers_bf16 = 1\nlast_layers_bf16 = 2\n").find("run.toml:5:21"),
            0u);
  EXPECT_EQ(warnings(run + "keep_bf16 = ['weight']\n").find("run.toml:5:13: " + nothing), 0u);
  EXPECT_EQ(warnings(run + "keep_bf16 = ['layers.0', 'layers.2']\n"), "");
  EXPECT_EQ(
      warnings(run + "keep_bf16 = ['attention']\n", {"model.moe.experts=4", "model.moe.ffn=8"}),
      "");
  EXPECT_NE(warnings(run + "keep_bf16 = ['attention', 'experts']\n",
                     {"model.moe.experts=4", "model.moe.ffn=8"}),
            "");
}

TEST(ConfigWarnings, EntriesOfKeepBf16ThatKeepNothing) {
  const std::string run = "[precision]\nrecipe = 'deepseek_v3'\n";
  EXPECT_EQ(warnings(run + "keep_bf16 = ['router', 'projection']\n"), "");  // the default
  EXPECT_EQ(warnings(run + "keep_bf16 = ['down', 'router']\n"),
            "run.toml:3:22: precision.keep_bf16: \"router\" has no effect: routers are never "
            "multiplied in FP8\n");
  EXPECT_EQ(warnings(run + "keep_bf16 = ['projection']\n"),
            "run.toml:3:14: precision.keep_bf16: \"projection\" has no effect: it stands in the "
            "name of no matrix of this model that FP8 would multiply\n");
  EXPECT_EQ(warnings(run + "keep_bf16 = ['projection']\n", {"model.mtp.depth=1"}), "");
}

TEST(ConfigWarnings, ShardingOnOneRank) {
  const std::string run = "[train]\nbatch = 8\n[parallel]\nzero_stage = 1\n";
  EXPECT_EQ(warnings(run, {}, 2), "");
  EXPECT_EQ(warnings(run, {}, 1),
            "run.toml:4:14: parallel.zero_stage = 1 has no effect: a single rank has nobody to "
            "share the optimiser's state with\n");
}

TEST(ConfigWarnings, ShardingOfPartsThatNobodyShares) {
  const std::string run = "[train]\nbatch = 8\n[parallel]\nzero_stage = 3\n[mesh]\ntp = 2\n";
  EXPECT_EQ(warnings(run, {}, 2), "");
  EXPECT_NE(warnings(run, {}, 1).find("parallel.zero_stage = 3 has no effect: no two ranks hold"),
            std::string::npos)
      << warnings(run, {}, 1);
  EXPECT_EQ(warnings(run, {"offload.optimizer=true"}, 1), "");
}

TEST(ConfigWarnings, PipelinesAndOrdersOfRanksThatAreNotThere) {
  EXPECT_NE(warnings("[pipeline]\nschedule = 'zb-v'\n")
                .find("run.toml:2:12: pipeline.schedule = \"zb-v\" has no effect: mesh.pp = 1"),
            std::string::npos);
  EXPECT_EQ(warnings("", {"pipeline.schedule=zb-v", "mesh.pp=2"}, 1), "");
  EXPECT_NE(warnings("", {"mesh.order=tp-pp"}).find("a single rank has no neighbours"),
            std::string::npos);
  EXPECT_EQ(warnings("", {"mesh.order=tp-pp", "mesh.tp=2"}), "");
}

TEST(ConfigWarnings, NothingHeldOut) {
  const std::string text = "data.held_out = 0: no document is held out";
  const std::string run = "[data]\nheld_out = 0\n[[data.sources]]\npath = 'a'\n";
  EXPECT_EQ(warnings(run).find("run.toml:2:12: " + text), 0u) << warnings(run);
  EXPECT_EQ(warnings(run + "held_out = 0.1\n").find(text), std::string::npos);
  EXPECT_EQ(warnings(run, {"train.evaluate_sequences=0"}), "");
}

// Also of elements of lists of tables, and by what the whole run comes to.
TEST(ConfigWarnings, SourcesAndStages) {
  const std::string one = "[[data.sources]]\npath = 'a'\nweight = 3\n";
  EXPECT_EQ(warnings(one),
            "run.toml:3:10: data.sources.0.weight = 3.0 has no effect: there is one source, so all "
            "samples are its own\n");
  EXPECT_EQ(warnings(one + "[[data.sources]]\npath = 'b'\n"), "");
  EXPECT_EQ(warnings("[[data.sources]]\npath = 'a'\nweight = 1\n"), "");
  const std::string run = "[train]\nsteps = 10\nbatch = 4\nsequence_length = 100\n";
  EXPECT_EQ(warnings(run + "[[stages]]\nfrom_tokens = 4000\nlr_multiplier = 2\n"),
            "run.toml:6:15: stages.0.from_tokens = 4000 has no effect: the run ends after 4000 "
            "tokens (train.steps = 10)\n");
  EXPECT_EQ(warnings(run + "[[stages]]\nfrom_tokens = 3600\n"), "");
}

TEST(ConfigWarnings, LeaveWhatIsRefusedToTheStart) {
  EXPECT_EQ(
      warnings("[train]\nbatch = 1000000000\nsequence_length = 10000000\n", {"optim.muon.steps=4"}),
      "");
}

// A resolved config says everything, and most of it is what nobody asked for.
TEST(ConfigWarnings, DefaultsAreNeverWarnedOf) {
  EXPECT_EQ(warnings(""), "");
  EXPECT_EQ(warnings(dump_config(RunConfig(), true)), "");
  for (const char* recipe : {"deepseek_v3", "per_tensor", "mxfp8", "block_gradients"}) {
    RunConfig config;
    config.precision.recipe = recipe;
    fill_in(config);
    EXPECT_EQ(warnings(dump_config(config, true)), "") << recipe;
  }
}

TEST(ConfigWarnings, PromotionSaysWhyItHasNoEffect) {
  const std::string run = "[precision]\nrecipe = 'deepseek_v3'\npromotion = 0\n";
  const std::string start = "run.toml:3:13: precision.promotion = 0 has no effect: ";
  EXPECT_EQ(warnings(run), start +
                               "precision.accumulator = \"fast\" adds to an f32 total where a "
                               "scale ends, and every 128 products\n");
  EXPECT_EQ(warnings(run + "accumulator = 'hopper'\n"),
            start +
                "sums are added to an f32 total where a scale ends, which is every 128 "
                "products\n");
}

TEST(ConfigWarnings, PredictionModulesThatLookBeyondTheSequence) {
  const std::string run = "[train]\nsteps = 10\nsequence_length = 24\n[model.mtp]\ndepth = ";
  EXPECT_EQ(warnings(run + "23\n"), "");
  EXPECT_EQ(warnings(run + "26\n"),
            "run.toml:5:9: model.mtp.depth = 26: the last 3 modules of 26 will learn nothing, "
            "because module k predicts k + 1 tokens ahead and sequences are 24 tokens long "
            "(train.sequence_length)\n");
  EXPECT_EQ(warnings(run + "26\n[[stages]]\nfrom_tokens = 24\nsequence_length = 32\n"), "");
}

TEST(ConfigWarnings, TheConfigsOfTheTreeDrawNone) {
  int files = 0;
  for (const char* folder : {"/configs/models", "/configs/runs"}) {
    for (const auto& entry :
         std::filesystem::directory_iterator(std::string(SHOESTRING_SOURCE_DIR) + folder)) {
      const std::string path = entry.path().string();
      const auto config = read_config<RunConfig>({.file = path, .overrides = {}});
      for (const std::string& text : config_warnings(config, 1, config.set_at))
        ADD_FAILURE() << text;
      ++files;
    }
  }
  EXPECT_GE(files, 30);
}

TEST(ConfigWarnings, RanksWithoutAMicroBatch) {
  const std::string run = "[train]\nbatch = 6\nmicro_batch = 2\n";
  for (int64_t ranks : {1, 2, 3}) EXPECT_EQ(warnings(run, {}, ranks), "") << ranks;
  EXPECT_EQ(warnings(run, {}, 5),
            "5 ranks share 3 micro-batches a step (a batch of 6 sequences in micro-batches of 2), "
            "which leaves 2 without work; start at most 3, or set a larger train.batch or a "
            "smaller train.micro_batch\n");
  EXPECT_EQ(warnings(run, {"train.micro_batch=6", "parallel.data_parallel=2"}, 2),
            "--set #2: 2 ranks share 1 micro-batch a step (a batch of 6 sequences in micro-batches "
            "of 6), which leaves 1 without work; start at most 1, or set a larger train.batch or a "
            "smaller train.micro_batch\n");
  // The stage with the fewest counts, if the run comes to it.
  const std::string stage = "[[stages]]\nfrom_tokens = 1000\nbatch = 2\n";
  const std::string warning = warnings(run + stage, {}, 2);
  EXPECT_NE(warning.find("1 micro-batch a step from 1000 tokens on"), std::string::npos) << warning;
  EXPECT_EQ(warnings(run + stage, {"train.steps=1", "train.sequence_length=100"}, 2).find("ranks"),
            std::string::npos);
}

}  // namespace
}  // namespace shoestring

// Decoding, measured: a random model of a config's shape reads a prompt and then writes greedily,
// one token of each sequence a step. One line of JSON; tests/bench/decode_speed runs it beside
// transformers. With --profile it adds a table of ops.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>

#include "core/check.h"
#include "core/instruction_set.h"
#include "core/layers/cached_attention.h"
#include "core/model/transformer.h"
#include "core/random.h"
#include "launcher/config.h"
#include "launcher/short_waits.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

struct ModelFile {
  ModelConfig model;
  template <class V>
  void visit(V&& v) {
    v("model", model, Field{.help = "the model"});
  }
};

struct DecodeOptions {
  std::string config, dtype = "f32";
  int threads = 0;
  int64_t sequences = 1, prompt = 64, tokens = 128;
  bool profile = false;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds and calls by op.
class OpTable : public OpObserver {
 public:
  void begin(std::string_view op, Phase) override {
    name_ = op;
    start_ = now();
  }
  void end() override {
    auto& [seconds, calls] = ops_[name_];
    seconds += now() - start_;
    ++calls;
  }
  void print(int64_t steps) const {
    for (const auto& [name, row] : ops_) {
      std::cerr << name << ": " << 1e6 * row.first / static_cast<double>(steps) << " us in "
                << row.second / steps << " calls a step\n";
    }
  }

 private:
  std::string name_;
  double start_ = 0;
  std::map<std::string, std::pair<double, int64_t>> ops_;
};

class Decoding {
 public:
  Decoding(const ModelConfig& config, const DecodeOptions& options)
      : device_(DeviceKind::cpu, 0, options.threads),
        store_(device_, parameters_of(config, whole_model(config)), dtype_from_name(options.dtype)),
        source_(store_),
        model_(config, store_, whole_model(config)),
        cache_(device_, config.layers, options.sequences, options.prompt + options.tokens + 1) {
    store_.initialise(1);
  }
  int64_t parameters() const { return store_.parameters(); }
  int64_t cache_bytes() const { return cache_.bytes(); }

  // The likeliest next token of each row.
  std::vector<int32_t> run(MicroBatch rows, bool last_only, OpTable* table) {
    const auto n = rows.tokens.size();
    rows.labels.assign(n, -1);
    rows.first_key.assign(n, 0);
    const BatchTensors batch = to_device(device_, rows);
    Tape tape(stream_, source_, Tape::Mode::inference);
    tape.observe(table);
    LayerContext context{.tape = tape, .batch = batch, .attention = &cache_};
    std::vector<int64_t> wanted;
    for (size_t i = last_only ? n - 1 : 0; i < n; ++i) wanted.push_back(static_cast<int64_t>(i));
    const Tensor logits =
        model_.logits(context, model_.run_blocks(context, model_.embed(context)), wanted);
    std::vector<int32_t> next;
    for (int64_t row = 0; row < logits.rows(); ++row) {
      const float* z = logits.data<float>() + row * logits.columns();
      next.push_back(static_cast<int32_t>(std::max_element(z, z + logits.columns()) - z));
    }
    return next;
  }
  CachedAttention& cache() { return cache_; }

 private:
  Device device_;
  Stream stream_ = Stream::immediate(device_);
  ParamStore store_;
  StoreSource source_;
  Transformer model_;
  CachedAttention cache_;
};

void measure(const DecodeOptions& o) {
  const ModelConfig config = read_config<ModelFile>({.file = o.config, .overrides = {}}).model;
  Decoding decoding(config, o);
  const RandomStream random(3, "prompt");
  std::vector<int64_t> all;
  std::vector<int32_t> ids;
  double start = now();
  for (int64_t s = 0; s < o.sequences; ++s) {
    MicroBatch rows{.sequences = 1, .length = o.prompt};
    for (int64_t t = 0; t < o.prompt; ++t) {
      const auto at = static_cast<uint64_t>(s * o.prompt + t);
      rows.tokens.push_back(
          static_cast<int32_t>(random.below(at, static_cast<uint64_t>(config.vocabulary))));
      rows.positions.push_back(static_cast<int32_t>(t));
    }
    decoding.cache().prefill(s);
    ids.push_back(decoding.run(rows, true, nullptr)[0]);
    all.push_back(s);
  }
  const double prefill = now() - start;
  OpTable table;
  std::vector<double> seconds;
  for (int64_t t = 0; t < o.tokens; ++t) {
    start = now();
    decoding.cache().decode(all);
    MicroBatch rows{.sequences = o.sequences, .length = 1, .tokens = ids};
    rows.positions.assign(ids.size(), static_cast<int32_t>(o.prompt + t));
    ids = decoding.run(rows, false, o.profile ? &table : nullptr);
    seconds.push_back(now() - start);
  }
  double sum = 0;
  for (double x : seconds) sum += x;
  std::nth_element(seconds.begin(), seconds.begin() + o.tokens / 2, seconds.end());
  const nlohmann::ordered_json line = {
      {"peer", "shoestring"},
      {"dtype", o.dtype},
      {"instruction_set", instruction_set()},
      {"parameters", decoding.parameters()},
      {"sequences", o.sequences},
      {"prefill_seconds", prefill},
      {"step_seconds_median", seconds[static_cast<size_t>(o.tokens / 2)]},
      {"tokens_per_second", static_cast<double>(o.sequences * o.tokens) / sum},
      {"cache_bytes", decoding.cache_bytes()}};
  std::cout << line.dump() << "\n";
  if (o.profile) table.print(o.tokens);
}

int run(int argc, char** argv) {
  CLI::App app("Measures decoding with a random model and prints JSON.");
  DecodeOptions o;
  app.add_option("--config", o.config, "TOML with a section model")->required();
  app.add_option("--dtype", o.dtype, "f32 or bf16");
  app.add_option("--threads", o.threads, "cores to use; 0: all");
  app.add_option("--sequences", o.sequences, "written side by side")->check(CLI::Range(1, 64));
  app.add_option("--prompt", o.prompt, "tokens of each prompt")->check(CLI::Range(1, 100000));
  app.add_option("--tokens", o.tokens, "tokens written to each")->check(CLI::Range(1, 100000));
  app.add_flag("--profile", o.profile, "a table of ops on stderr");
  CLI11_PARSE(app, argc, argv);
  cap_instruction_set_from_environment();
  measure(o);
  return 0;
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  shoestring::wait_shortly(argv);
  try {
    return shoestring::run(argc, argv);
  } catch (const shoestring::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}

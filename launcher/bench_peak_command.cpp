#include "launcher/bench_peak_command.h"

#include <algorithm>

#include "core/check.h"
#include "core/ops/head_loss.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/run_config.h"

namespace shoestring {
namespace {

constexpr double share_of_peak = 0.93;  // what products of the model should reach
constexpr double giga = 1e9;

void check_options(const BenchPeakOptions& options) {
  if (options.threads < 0 || options.threads > 4096) {
    fail_usage(cat("--threads is ", options.threads, "; from 0 (all cores) to 4096"));
  }
  if (options.rounds < 1) fail_usage(cat("--rounds is ", options.rounds, "; 1 or more"));
  if (options.largest < 1024 || options.largest > 16384) {
    fail_usage(cat("--largest is ", options.largest, "; from 1024 to 16384"));
  }
}

ProductSizes sizes_of(const BenchPeakOptions& options, Dtype dtype) {
  if (options.config.empty() && options.overrides.empty()) return {};
  return product_sizes(
      read_config<RunConfig>({.file = options.config, .overrides = options.overrides}), dtype);
}

std::vector<Dtype> dtypes_of(const std::string& name) {
  if (name.empty()) return {Dtype::f32, Dtype::bf16};
  if (name != "f32" && name != "bf16") fail_usage(cat("--dtype is '", name, "'; f32 or bf16"));
  return {dtype_from_name(name)};
}

}  // namespace

ProductSizes product_sizes(const RunConfig& config, Dtype dtype) {
  const ModelConfig& model = config.model;
  const int64_t tokens = config.train.micro_batch * config.train.sequence_length;
  const int64_t query = model.heads * model.dim_of_head();
  return {.tokens = tokens,
          .width = model.hidden,
          .inner = model.ffn,
          .vocabulary = model.vocabulary,
          .qkv_width = query + 2 * model.kv_heads * model.dim_of_head(),
          .output_width = query,
          .head_tokens = std::min(tokens, HeadLoss::chunk_rows({}, model.vocabulary, dtype))};
}

std::vector<Measurement> bench_peak(const BenchPeakOptions& options) {
  check_options(options);
  Device device(DeviceKind::cpu, 0, static_cast<int>(options.threads));
  const auto cubes = cube_products(options.largest);
  auto cases = cubes;
  const std::vector<Dtype> dtypes = dtypes_of(options.dtype);
  for (ProductCase& c : training_products(sizes_of(options, dtypes.front()))) {
    // A config may leave the vocabulary, and with it the head, to its token store.
    if (c.rows > 0 && c.columns > 0 && c.inner > 0) cases.push_back(std::move(c));
  }
  // One loop over everything: goals compare rates of the same minutes.
  const auto rates = measure_products(device, cases, dtypes, static_cast<int>(options.rounds));
  std::vector<Measurement> rows;
  for (size_t t = 0; t < dtypes.size(); ++t) {
    const auto* first = &rates[t * cases.size()];
    double peak = 0;
    for (size_t i = 0; i < cases.size(); ++i) peak = std::max(peak, first[i].flops);
    rows.push_back({cat("peak.", name_of(dtypes[t])), peak / giga, "GFLOP/s"});
    for (size_t i = 0; i < cases.size(); ++i) {
      Measurement row{cat("product.", name_of(dtypes[t]), ".", first[i].name),
                      first[i].flops / giga, "GFLOP/s"};
      if (i >= cubes.size()) row.goal = share_of_peak * peak / giga;
      rows.push_back(std::move(row));
    }
  }
  const MemoryBandwidth bandwidth = measured_bandwidth(device);
  rows.push_back({"memory.copy", bandwidth.copy / giga, "GB/s"});
  rows.push_back({"memory.triad", bandwidth.triad / giga, "GB/s"});
  return rows;
}

}  // namespace shoestring

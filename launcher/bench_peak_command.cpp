#include "launcher/bench_peak_command.h"

#include <algorithm>

#include "core/check.h"
#include "core/machine_limits.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr double share_of_peak = 0.93;  // what products of the model should reach
constexpr double giga = 1e9;

void check_options(const BenchPeakOptions& options) {
  if (options.threads < 0) fail_usage(cat("--threads is ", options.threads, "; 0 or more"));
  if (options.rounds < 1) fail_usage(cat("--rounds is ", options.rounds, "; 1 or more"));
  if (options.largest < 1024 || options.largest > 16384) {
    fail_usage(cat("--largest is ", options.largest, "; from 1024 to 16384"));
  }
}

}  // namespace

std::vector<Measurement> bench_peak(const BenchPeakOptions& options) {
  check_options(options);
  Device device(DeviceKind::cpu, 0, static_cast<int>(options.threads));
  const auto cubes = cube_products(options.largest);
  auto cases = cubes;
  for (ProductCase& c : training_products({})) cases.push_back(std::move(c));
  const Dtype dtypes[] = {Dtype::f32, Dtype::bf16};
  // One loop over everything: goals compare rates of the same minutes.
  const auto rates = measure_products(device, cases, dtypes, static_cast<int>(options.rounds));
  std::vector<Measurement> rows;
  for (size_t t = 0; t < std::size(dtypes); ++t) {
    const auto* first = &rates[t * cases.size()];
    double peak = 0;
    for (size_t i = 0; i < cubes.size(); ++i) peak = std::max(peak, first[i].flops);
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

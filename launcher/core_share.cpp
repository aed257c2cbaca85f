#include "launcher/core_share.h"

#include <sched.h>

#include <algorithm>
#include <vector>

#include "core/parallel_for.h"

namespace shoestring {
namespace {

// One byte a core: 1 where this thread may run. All that the machine has when it does not say.
std::vector<uint8_t> allowed_cores() {
  std::vector<uint8_t> cores(CPU_SETSIZE);
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (size_t i = 0; i < cores.size(); ++i) cores[i] = CPU_ISSET(i, &set) ? 1 : 0;
  } else {
    std::fill_n(cores.begin(), std::min<size_t>(cores.size(), hardware_threads()), uint8_t{1});
  }
  return cores;
}

int64_t count(const std::vector<uint8_t>& cores) {
  return std::max<int64_t>(1, std::count(cores.begin(), cores.end(), 1));
}

}  // namespace

CoreShare share_cores(Communicator& here, int64_t wanted) {
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  std::vector<uint8_t> cores = allowed_cores();
  const int64_t own = count(cores);
  here.all_reduce(buffer_of(std::span(cores)), Reduce::max, stream);
  const int64_t all = count(cores), ranks = here.size();
  int64_t threads = std::max<int64_t>(1, (wanted > 0 ? wanted : all) / ranks);
  if (wanted == 0) threads = std::min(threads, own);
  return {.threads = static_cast<int>(threads),
          .cores = static_cast<int>(std::min(all, threads * ranks)),
          .own_cores = static_cast<int>(own),
          .first = here.rank() == 0};
}

}  // namespace shoestring

#include "core/parallel_for.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "core/device.h"

namespace shoestring {
namespace {

// Keeps the first exception of a team; the pragmas below must not let any escape.
class FirstError {
 public:
  template <class F>
  void guard(F&& f) {
    try {
      f();
    } catch (...) {
      std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }
  void rethrow() {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

void parallel_for(Device& device, int64_t n, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t units = (n + grain - 1) / grain;
  const int64_t threads = std::min<int64_t>(device.threads(), units);
  if (threads <= 1) {
    body(0, n);
    return;
  }
  FirstError error;
#pragma omp parallel for num_threads(static_cast <int>(threads)) schedule(static, 1)
  for (int64_t t = 0; t < threads; ++t) {
    const int64_t begin = units * t / threads * grain;
    const int64_t end = std::min(n, units * (t + 1) / threads * grain);
    if (begin < end) error.guard([&] { body(begin, end); });
  }
  error.rethrow();
}

void parallel_for_dynamic(Device& device, int64_t n, const std::function<void(int64_t)>& body) {
  parallel_for_dynamic(device, n, device.threads(), body);
}

void parallel_for_dynamic(Device& device, int64_t n, int64_t threads,
                          const std::function<void(int64_t)>& body) {
  threads = std::min({static_cast<int64_t>(device.threads()), threads, n});
  if (threads <= 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
  FirstError error;
#pragma omp parallel for num_threads(static_cast <int>(threads)) schedule(dynamic, 1)
  for (int64_t i = 0; i < n; ++i) error.guard([&] { body(i); });
  error.rethrow();
}

int64_t threads_for(const Device& device, int64_t work, int64_t enough) {
  return std::min<int64_t>(device.threads(), 1 + work / enough);
}

int64_t rows_a_range(int64_t columns, int64_t elements) {
  return std::max<int64_t>(1, elements / std::max<int64_t>(columns, 1));
}

int hardware_threads() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace shoestring

#pragma once
// Loops over the cores that a device may use. One implementation file holds the OpenMP pragmas.

#include <cstdint>
#include <functional>

namespace shoestring {

class Device;

// Calls body(begin, end) on disjoint ranges that cover [0, n), on up to device.threads() threads.
// Range borders are multiples of `grain` (the last may be short); which thread gets which range is
// fixed by (n, grain, threads), so sums per range are deterministic. n <= grain runs inline.
// Exceptions of any range reach the caller (the first one).
void parallel_for(Device& device, int64_t n, int64_t grain,
                  const std::function<void(int64_t begin, int64_t end)>& body);

// Calls body(i) for each i in [0, n), handed out one at a time to whichever thread is free: for
// uneven work whose results do not depend on the thread (causal attention tiles).
void parallel_for_dynamic(Device& device, int64_t n, const std::function<void(int64_t i)>& body);
// The same on at most `threads` threads.
void parallel_for_dynamic(Device& device, int64_t n, int64_t threads,
                          const std::function<void(int64_t i)>& body);

// The threads of the device that `work` pays for, in units of which `enough` take about a quarter
// of a millisecond on one: for less, waking another thread, and on a busy machine waiting until it
// gets a core, costs more than it saves.
int64_t threads_for(const Device& device, int64_t work, int64_t enough);

// The grain for rows of `columns` elements: as many rows as make `elements`, below which waking a
// thread costs more than it saves. Elementwise work takes some 10 microseconds for the default;
// ops that compute exponentials divide it.
int64_t rows_a_range(int64_t columns, int64_t elements = 16384);

int hardware_threads();

}  // namespace shoestring

#pragma once
// Where work runs: Device (memory and a ledger), Stream (an ordered queue of work) and Event (a
// point in a stream). The same three on a CPU and on a GPU; the engine does not know which.
// A CPU stream either runs work at once on the calling thread (`immediate`, for compute) or on a
// worker thread of its own (`worker`, for communication that overlaps compute).

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/memory.h"

namespace shoestring {

enum class DeviceKind : uint8_t { cpu, cuda };

class Device {
 public:
  // `threads`: how many threads one op may use here (ranks share a machine's cores); 0 = all.
  explicit Device(DeviceKind kind = DeviceKind::cpu, int index = 0, int threads = 0);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  DeviceKind kind() const { return kind_; }
  int index() const { return index_; }
  int threads() const { return threads_; }
  Pool& pool() { return pool_; }
  Ledger& ledger() { return ledger_; }
  BlockPtr allocate(size_t bytes, MemoryKind kind) {
    return std::make_shared<Block>(*this, bytes, kind);
  }

 private:
  DeviceKind kind_;
  int index_, threads_;
  Pool pool_;
  Ledger ledger_;
};

// Copyable handle. A default event has happened already.
class Event {
 public:
  Event() = default;
  bool happened() const;
  // Blocks the calling thread; rethrows what the stream's work threw before this point.
  void wait() const;

 private:
  friend class Stream;
  struct State;
  std::shared_ptr<State> state_;
};

class Stream {
 public:
  static Stream immediate(Device& device);
  static Stream worker(Device& device, std::string name);
  ~Stream();  // waits for the work in flight
  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) = delete;

  Device& device() const { return *device_; }
  // Work throws to synchronize(), Event::wait() or the next run(); work behind it is destroyed.
  void run(std::function<void()> work);
  Event record();
  void wait(const Event& event);  // later work of this stream starts after the event
  void synchronize();

 private:
  struct Worker;
  explicit Stream(Device& device);
  Device* device_;
  std::unique_ptr<Worker> worker_;  // null: immediate
};

// Runs the kernel of the stream's device on the stream. A null function is a kernel that this build
// does not have, and the error names the op.
template <class... A>
void on(Stream& stream, std::string_view op, void (*cpu)(Stream&, A...),
        std::type_identity_t<void (*)(Stream&, A...)> cuda, std::type_identity_t<A>... arguments);

[[noreturn]] void fail_no_kernel(std::string_view op, DeviceKind kind);

template <class... A>
void on(Stream& stream, std::string_view op, void (*cpu)(Stream&, A...),
        std::type_identity_t<void (*)(Stream&, A...)> cuda, std::type_identity_t<A>... arguments) {
  const DeviceKind kind = stream.device().kind();
  auto kernel = kind == DeviceKind::cpu ? cpu : cuda;
  if (kernel == nullptr) fail_no_kernel(op, kind);
  kernel(stream, static_cast<A>(arguments)...);
}

}  // namespace shoestring

#include "core/device.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "core/check.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {

Device::Device(DeviceKind kind, int index, int threads)
    : kind_(kind), index_(index), threads_(threads > 0 ? threads : hardware_threads()) {
  if (kind == DeviceKind::cuda) fail_no_kernel("device", kind);
}

void fail_no_kernel(std::string_view op, DeviceKind kind) {
  fail(cat("[", op, "] has no kernel for ", kind == DeviceKind::cpu ? "the CPU" : "CUDA",
           " in this build; set device = \"cpu\" or build the preset 'cuda'"));
}

struct Event::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::exception_ptr error;
};

bool Event::happened() const {
  if (state_ == nullptr) return true;
  std::lock_guard lock(state_->mutex);
  return state_->done;
}

void Event::wait() const {
  if (state_ == nullptr) return;
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->done; });
  if (state_->error) std::rethrow_exception(state_->error);
}

struct Stream::Worker {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  std::exception_ptr error;  // the first; later work is skipped until somebody is told
  bool stop = false;
  std::thread thread;

  explicit Worker(std::string name) {
    thread = std::thread([this, rank = log_rank(), name = std::move(name)] {
      set_log_rank(rank);
      loop();
    });
  }
  ~Worker() {
    {
      std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_all();
    thread.join();
  }
  void loop() {
    while (true) {
      std::function<void()> work;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || !queue.empty(); });
        if (queue.empty()) return;
        work = std::move(queue.front());
        queue.pop_front();
      }
      work();
    }
  }
  void push(std::function<void()> work) {
    {
      std::lock_guard lock(mutex);
      queue.push_back(std::move(work));
    }
    changed.notify_all();
  }
  std::exception_ptr current_error() {
    std::lock_guard lock(mutex);
    return error;
  }
  // Work that is skipped is destroyed where the error is std::current_exception(), so that it can
  // tell those who wait for it elsewhere.
  void guarded(std::function<void()>& work) {
    try {
      if (const auto before = current_error()) std::rethrow_exception(before);
      work();
    } catch (...) {
      work = nullptr;
      std::lock_guard lock(mutex);
      error = std::current_exception();
    }
  }
};

Stream::Stream(Device& device) : device_(&device) {}
Stream::Stream(Stream&&) noexcept = default;
Stream::~Stream() = default;

Stream Stream::immediate(Device& device) { return Stream(device); }

Stream Stream::worker(Device& device, std::string name) {
  Stream stream(device);
  stream.worker_ = std::make_unique<Worker>(std::move(name));
  return stream;
}

void Stream::run(std::function<void()> work) {
  if (worker_ == nullptr) {
    work();
    return;
  }
  if (auto error = worker_->current_error()) std::rethrow_exception(error);
  worker_->push(
      [worker = worker_.get(), work = std::move(work)]() mutable { worker->guarded(work); });
}

Event Stream::record() {
  Event event;
  if (worker_ == nullptr) return event;
  event.state_ = std::make_shared<Event::State>();
  worker_->push([worker = worker_.get(), state = event.state_] {
    std::exception_ptr error = worker->current_error();
    {
      std::lock_guard lock(state->mutex);
      state->done = true;
      state->error = error;
    }
    state->changed.notify_all();
  });
  return event;
}

void Stream::wait(const Event& event) {
  if (worker_ == nullptr) {
    event.wait();
  } else {
    run([event] { event.wait(); });
  }
}

void Stream::synchronize() { record().wait(); }

}  // namespace shoestring

#include "launcher/signals.h"

#include <atomic>
#include <csignal>

namespace shoestring {
namespace {

// Written by the handler, read by the threads of all ranks.
std::atomic<int> received = 0;
static_assert(std::atomic<int>::is_always_lock_free);

void remember(int signal) {
  if (received != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
    return;
  }
  received = signal;
}

}  // namespace

void catch_stop_signals() {
  received = 0;
  struct sigaction action = {};
  action.sa_handler = remember;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int stop_signal() { return received; }

void ignore_file_size_signal() { std::signal(SIGXFSZ, SIG_IGN); }

}  // namespace shoestring

#include "launcher/stop_deadline.h"

#include <chrono>
#include <cstdlib>
#include <optional>

#include "core/check.h"
#include "core/log.h"
#include "core/text.h"
#include "launcher/signals.h"

namespace shoestring {

StopDeadline::StopDeadline(double seconds, std::string directory, double patience)
    : seconds_(seconds), patience_(patience), directory_(std::move(directory)) {
  thread_ = std::thread([this] { watch(); });
}

StopDeadline::~StopDeadline() {
  {
    std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void StopDeadline::watch() {
  using Clock = std::chrono::steady_clock;
  // A handler may not notify, so this looks.
  constexpr std::chrono::milliseconds pause{20};
  std::optional<Clock::time_point> came;
  std::unique_lock lock(mutex_);
  while (!over_) {
    changed_.wait_for(lock, pause);
    if (over_ || stop_signal() == 0) continue;
    if (!came) came = Clock::now();
    const double waited = std::chrono::duration<double>(Clock::now() - *came).count();
    if (!begun_) {
      if (waited < patience_) continue;
      log_error(cat("the run in ", directory_,
                    " was stopped by a signal before it took a step: there is ",
                    "nothing to save. The same command starts it again"));
      std::_Exit(static_cast<int>(ExitCode::preempted));
    }
    if (seconds_ <= 0 || waited < seconds_) continue;
    log_error(cat("the run in ", directory_, " could not save within run.signal_deadline = ",
                  seconds_, " s after the signal and ends now: the steps since its last ",
                  "checkpoint are lost. The same command goes on from that checkpoint"));
    std::_Exit(static_cast<int>(ExitCode::preempted));
  }
}

}  // namespace shoestring

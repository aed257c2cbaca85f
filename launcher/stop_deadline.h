#pragma once
// The end of a run that was asked to stop and could not save in time: whoever sent the signal ends
// the process soon anyway, and code 75 says that starting again resumes.

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace shoestring {

class StopDeadline {
 public:
  // Watches stop_signal(). `seconds` after it came, this object being there still, the process ends
  // with the preemption code and a message that names `directory`. 0 seconds: never.
  StopDeadline(double seconds, std::string directory);
  ~StopDeadline();
  StopDeadline(const StopDeadline&) = delete;
  StopDeadline& operator=(const StopDeadline&) = delete;

 private:
  void watch();

  double seconds_;
  std::string directory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace shoestring

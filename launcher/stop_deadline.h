#pragma once
// The end of a run that was asked to stop before its first step, or that could not save in time:
// whoever sent the signal ends the process soon anyway, and code 75 says that starting again
// resumes.

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace shoestring {

class StopDeadline {
 public:
  // Watches stop_signal(). Before begun() a signal ends the process after `patience` seconds: there
  // is nothing to save. (MPI sends the signal to the other ranks where one has failed, and kills
  // them within a second or two: the failed one has said why, and they say nothing.) After begun()
  // the process ends `seconds` after the signal, this object being there still, with the preemption
  // code and a message that names `directory`. 0 seconds: never.
  StopDeadline(double seconds, std::string directory, double patience = 0);
  ~StopDeadline();
  // From any thread, any number of times: there are steps to save now, or soon.
  void begun() { begun_ = true; }
  StopDeadline(const StopDeadline&) = delete;
  StopDeadline& operator=(const StopDeadline&) = delete;

 private:
  void watch();

  double seconds_, patience_;
  std::string directory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::atomic<bool> begun_ = false;
  std::thread thread_;
};

}  // namespace shoestring

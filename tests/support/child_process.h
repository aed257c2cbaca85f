#pragma once
// A program that runs beside the test, to be signalled while it works.

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace shoestring {

class ChildProcess {
 public:
  struct Options {
    std::string output;           // a file for standard output and error
    long largest_file_bytes = 0;  // RLIMIT_FSIZE: a full disk; 0: no limit
  };
  // The words are the program (searched in PATH) and its arguments.
  ChildProcess(const std::vector<std::string>& words, const Options& options);
  ~ChildProcess();  // kills it when it still runs
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void signal(int number) const;
  // True once it has ended.
  bool ended();
  // Waits; 128 + the signal's number when one ended it. Kills it after `limit` and returns -1.
  int wait(std::chrono::seconds limit = std::chrono::seconds(120));
  // Waits until `condition` holds or the process has ended; returns whether it held.
  bool wait_until(const std::function<bool()>& condition);

 private:
  pid_t process_ = -1;
  int status_ = -1;
  bool ended_ = false;
};

// The binary under test.
std::string binary_path();

}  // namespace shoestring

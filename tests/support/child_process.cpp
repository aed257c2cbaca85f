#include "tests/support/child_process.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "core/check.h"

namespace shoestring {
namespace {

constexpr std::chrono::milliseconds pause{2};

// In the child: nothing here may allocate.
[[noreturn]] void become(char* const* argv, const char* output, rlim_t largest_file) {
  const int file = ::open(output, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file < 0 || ::dup2(file, 1) < 0 || ::dup2(file, 2) < 0) ::_exit(126);
  if (largest_file > 0) {
    const rlimit limit = {largest_file, largest_file};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(126);
  }
  ::execvp(argv[0], argv);
  ::_exit(127);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& words, const Options& options) {
  std::vector<std::string> copies = words;
  std::vector<char*> argv;
  for (std::string& word : copies) argv.push_back(word.data());
  argv.push_back(nullptr);
  process_ = ::fork();
  if (process_ < 0) fail("cannot fork");
  if (process_ == 0) {
    become(argv.data(), options.output.c_str(), static_cast<rlim_t>(options.largest_file_bytes));
  }
}

ChildProcess::~ChildProcess() {
  if (ended()) return;
  signal(SIGKILL);
  ::waitpid(process_, &status_, 0);
}

void ChildProcess::signal(int number) const {
  if (!ended_) ::kill(process_, number);
}

bool ChildProcess::ended() {
  if (!ended_) ended_ = ::waitpid(process_, &status_, WNOHANG) == process_;
  return ended_;
}

bool ChildProcess::wait_until(const std::function<bool()>& condition) {
  while (!condition()) {
    if (ended()) return condition();
    std::this_thread::sleep_for(pause);
  }
  return true;
}

int ChildProcess::wait(std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!ended()) {
    if (std::chrono::steady_clock::now() > end) {
      signal(SIGKILL);
      ::waitpid(process_, &status_, 0);
      ended_ = true;
      return -1;
    }
    std::this_thread::sleep_for(pause);
  }
  return WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
}

std::string binary_path() { return SHOESTRING_BINARY_DIR "/shoestring"; }

}  // namespace shoestring

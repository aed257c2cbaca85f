#include "tests/support/run_binary.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// In the child: nothing here may allocate.
[[noreturn]] void become(char* const* argv, const char* const* files) {
  for (int fd = 0; fd < 3; ++fd) {
    int flags = fd == 0 ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC;
    int opened = ::open(files[fd], flags, 0600);
    if (opened < 0 || ::dup2(opened, fd) < 0) ::_exit(126);
  }
  ::execv(argv[0], argv);
  ::_exit(127);
}

}  // namespace

BinaryResult run_binary(const std::vector<std::string>& arguments, const std::string& input) {
  std::string pattern = (std::filesystem::temp_directory_path() / "run_binary_XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) fail("cannot make a temporary folder");
  std::filesystem::path folder = pattern;
  std::ofstream(folder / "in", std::ios::binary) << input;
  std::string files[3] = {folder / "in", folder / "out", folder / "err"};
  const char* paths[3] = {files[0].c_str(), files[1].c_str(), files[2].c_str()};
  std::vector<std::string> words = {SHOESTRING_BINARY_DIR "/shoestring"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  pid_t child = ::fork();
  if (child < 0) fail("cannot fork");
  if (child == 0) become(argv.data(), paths);
  int status = 0;
  if (::waitpid(child, &status, 0) != child) fail("lost the child process");
  BinaryResult result{
      .exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
      .out = read_all(folder / "out"),
      .err = read_all(folder / "err")};
  std::filesystem::remove_all(folder);
  return result;
}

}  // namespace shoestring

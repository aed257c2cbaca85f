// One rank of eight processes fails at a place of the second step; the line is on standard error.
//   mpirun -n 8 mpi_rank_failure RANK PLACE HOW TESTS FOLDER DEADLINE_MS
//     HOW: throw, hang, kill (SIGKILL), stop (SIGSTOP)
//   mpi_rank_failure places             names of the places
//   mpi_rank_failure check RANK PLACE HOW FILE      whether the output in a file tells it

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "launcher/signals.h"
#include "parallel/comm/mpi.h"
#include "tests/equivalence/planted_failure.h"

namespace {

using namespace shoestring;

void happen(const std::string& how) {
  std::fputs("it happens\n", stderr);
  if (how == "throw") fail("planted");
  if (how == "kill") std::raise(SIGKILL);
  if (how == "stop") std::raise(SIGSTOP);
  while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
}

int check_lines(int rank, const FailurePlace& place, const std::string& how, const char* path) {
  std::ifstream file(path);
  int lines = 0;
  std::string line, missing = "a line";
  while (std::getline(file, line)) {
    if (!line.starts_with("error: ")) continue;
    ++lines;
    const std::string said = cat("rank ", rank,
                                 how == "throw"  ? ": planted"
                                 : how == "kill" ? " is dead: its process was killed"
                                                 : " does not answer: rank ");
    missing = missing_in(line, place, rank, said, how == "hang" || how == "stop");
  }
  if (lines == 1 && missing.empty()) return 0;
  std::printf("%d lines; there is no %s\n", lines, missing.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 1) {
    for (const FailurePlace& place : failure_places()) std::puts(place.name);
    return 0;
  }
  if (words.size() < 5) return 2;
  const bool checks = words[0] == "check";
  const std::string how = words[checks ? 3 : 2];
  const int victim = std::atoi(words[checks ? 1 : 0].c_str());
  const FailurePlace* const place = failure_place(words[checks ? 2 : 1]);
  if (place == nullptr) return 2;
  if (checks) return check_lines(victim, *place, how, words[4].c_str());
  if (words.size() != 6) return 2;
  catch_stop_signals();
  const RunConfig config = failing_config(words[3], words[4], place->mesh);
  run_mpi(
      [&](Communicator& world) {
        const auto here = world.split(mpi_machine(), world.rank());
        PlantedFailure failure(*place, how == "throw", [&] { happen(how); });
        train_to_failure(config, world, *here, world.rank() == victim ? &failure : nullptr);
      },
      {.deadline = std::chrono::milliseconds(std::atoi(words[5].c_str()))});
  return 0;
}

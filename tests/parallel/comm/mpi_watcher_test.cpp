#include "parallel/comm/mpi_watcher.h"

#include <atomic>

#include "tests/parallel/comm/mpi_child.h"

namespace shoestring {
namespace {

TEST(MpiWatcher, TellsOfACallThatDoesNotComeBackOnceItIsLate) {
  in_child([]() -> std::string {
    MPI_Init(nullptr, nullptr);
    std::string message;
    std::atomic<int> told = 0;
    {
      MpiBoard board;
      const MpiWatcher watcher(board, std::chrono::milliseconds(300),
                               [&](const std::string& text, int rank) {
                                 message = text;
                                 told += rank == -1 ? 1 : 100;
                               });
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      if (told != 0) return "it told of a call that nobody makes";
      board.own().set_blocked("MPI_Comm_split");
      std::this_thread::sleep_for(std::chrono::milliseconds(150));
      if (told != 0) return "it told too early";
      for (int i = 0; i < 500 && told == 0; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    }
    if (told != 1) return "it did not tell once";
    if (message != "MPI did not come back from MPI_Comm_split within 300 ms") return message;
    MPI_Finalize();
    return {};
  });
}

}  // namespace
}  // namespace shoestring

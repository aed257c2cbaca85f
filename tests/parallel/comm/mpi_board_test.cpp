// One rank alone; tests/equivalence/mpi_rank_failures.sh kills and stops real ones.

#include "parallel/comm/mpi_board.h"

#include "parallel/comm/rank_environment.h"
#include "tests/parallel/comm/mpi_child.h"

namespace shoestring {
namespace {

TEST(MpiBoard, ARankAloneIsThereAndLacksNobody) {
  in_child([]() -> std::string {
    MPI_Init(nullptr, nullptr);
    {
      MpiBoard board;
      if (board.all().size() != 1 || board.all()[0] != &board.own()) return "not one rank";
      if (board.own().state() != Whereabouts::running) return "it does not run";
      if (board.own().host() != host_name() || board.own().process() != getpid())
        return "who is it";
      if (board.lost() || board.gone()) return "it misses somebody";
      if (!board.claim_telling() || board.claim_telling()) return "it tells twice or never";
    }
    MPI_Finalize();
    return {};
  });
}

}  // namespace
}  // namespace shoestring

// What a process without mpirun can see of the MPI back end; tests/conformance runs it on several.

#include "parallel/comm/mpi.h"

#include <gtest/gtest.h>
#include <mpi.h>

namespace shoestring {
namespace {

TEST(Mpi, NothingStartsMpiUntilASessionIsMade) {
  int initialized = 1;
  MPI_Initialized(&initialized);
  EXPECT_EQ(initialized, 0);
}

TEST(Mpi, PiecesHaveALength) {
  EXPECT_THROW(MpiSession({.piece_bytes = 0}), Error);
  EXPECT_THROW(MpiSession({.piece_bytes = int64_t{1} << 31}), Error);
  int initialized = 1;
  MPI_Initialized(&initialized);
  EXPECT_EQ(initialized, 0);
}

}  // namespace
}  // namespace shoestring

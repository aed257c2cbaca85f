// What one process can see; tests/conformance runs several.

#include "parallel/comm/mpi_transport.h"

#include "tests/parallel/comm/mpi_child.h"

namespace shoestring {
namespace {

TEST(MpiTransport, ErrorsOfMpiNameTheCall) {
  in_child([]() -> std::string {
    const MpiSession session;
    call_mpi(MPI_SUCCESS, "MPI_Test");
    try {
      call_mpi(MPI_ERR_COMM, "MPI_Test");
    } catch (const Error& error) {
      return std::string(error.what()).starts_with("MPI says in MPI_Test: ") ? "" : error.what();
    }
    return "no error";
  });
}

TEST(MpiTransport, ACauseIsKeptForTheLine) {
  in_child([]() -> std::string {
    MpiSession session;
    if (session.abort_cause().second != -1) return "a cause of nothing";
    auto world = session.world();
    world->abort("first");
    world->abort("second");
    return session.abort_cause().first == "first" ? "" : session.abort_cause().first;
  });
}

}  // namespace
}  // namespace shoestring

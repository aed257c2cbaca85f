# mpi_test asks MPI itself whether it was started.
target_link_libraries(test_parallel PRIVATE MPI::MPI_CXX)

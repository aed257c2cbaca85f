#include "parallel/comm/rank_environment.h"

#include <unistd.h>

#include <array>
#include <charconv>

#include "core/check.h"
#include "core/environment.h"
#include "core/text.h"

namespace shoestring {
namespace {

struct Names {
  const char *rank, *size, *local_rank;
};

// Open MPI first: under srun with Open MPI both its variables and Slurm's are set. A Slurm batch
// script has SLURM_PROCID too, but SLURM_STEP_NUM_TASKS only inside a step.
constexpr std::array<Names, 3> launchers{{
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"},
}};

std::optional<int> number(const ReadVariable& read, const char* name) {
  const std::optional<std::string> text = read(name);
  if (!text) return std::nullopt;
  int value = -1;
  const char* const end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, value);
  if (error != std::errc() || stop != end || value < 0) {
    fail_usage(cat("the environment says ", name, "=", *text, ", which is no rank or count"));
  }
  return value;
}

}  // namespace

std::optional<RankPlace> rank_place() { return rank_place(environment_variable); }

std::optional<RankPlace> rank_place(const ReadVariable& read) {
  for (const Names& names : launchers) {
    const auto rank = number(read, names.rank);
    const auto size = number(read, names.size);
    if (!rank || !size) continue;
    if (*rank >= *size) {
      fail_usage(cat("the environment says ", names.rank, "=", *rank, " but ", names.size, "=",
                     *size, "; ranks count from 0"));
    }
    return RankPlace{*rank, *size, number(read, names.local_rank).value_or(0)};
  }
  return std::nullopt;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "an unknown host";
  return name.data();
}

}  // namespace shoestring

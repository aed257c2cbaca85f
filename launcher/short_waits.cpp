#include "launcher/short_waits.h"

#include <unistd.h>

#include <cstdlib>

#include "core/environment.h"

namespace shoestring {

void wait_shortly(char** argv) {
  constexpr const char* spins = "GOMP_SPINCOUNT";
  if (environment_variable("OMP_WAIT_POLICY") || environment_variable(spins)) return;
  if (::setenv(spins, "1000", 0) != 0) return;
  ::execv("/proc/self/exe", argv);
}

}  // namespace shoestring

#pragma once
// Threads that wait for one another within a product or a loop spin before they sleep. OpenMP's
// default, some milliseconds, is right for one program alone on a machine: with anything else
// running, or ranks that share cores, the one that spins takes the core from the one it waits for.

namespace shoestring {

// Lets them sleep after some ten microseconds. The OpenMP library reads this once, when it is
// loaded, so the program starts itself again with the variable set; it returns when it is set, when
// the user has chosen (OMP_WAIT_POLICY or GOMP_SPINCOUNT), or when there is no way to start again.
// To be called first in main.
void wait_shortly(char** argv);

}  // namespace shoestring

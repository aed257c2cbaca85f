#pragma once
// SIGINT and SIGTERM ask a run to stop: it ends what it does within run.signal_deadline, saves and
// exits with the preemption code. A second signal ends the process at once.

namespace shoestring {

// Installs the handlers; signals are process-wide, so this is called once, by the train command.
void catch_stop_signals();
// A write beyond the limit on file sizes then fails with a message, as on a full disk, instead of
// ending the process.
void ignore_file_size_signal();
// The number of the signal that came, 0 when none did. Safe from any thread.
int stop_signal();

}  // namespace shoestring

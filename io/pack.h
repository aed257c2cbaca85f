#pragma once
// `shoestring data pack`: text in, token store out, on all cores, in bounded memory, restartable.
//
// While packing, OUT.packing/ holds the tokens so far and a journal (io/pack_journal.h). Run again
// after a kill or a full disk, packing continues behind the last piece of a document that is on the
// device: the input it was in is read again up to there (documents are compared by their hashes)
// but not tokenized again. The result is the same, bit for bit, as of a run that was never stopped.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "io/pack_pipeline.h"
#include "io/text_source.h"

namespace shoestring {

struct PackOptions {
  std::vector<std::string> inputs;  // see list_inputs
  TextOptions text;
  std::string out;
  int threads = 1;                            // encoders; one more thread reads, one writes
  int64_t memory_bytes = int64_t{512} << 20;  // for text and tokens in flight; >= 32 MiB
  bool overwrite = false;                     // replace OUT if it exists
  bool restart = false;                       // forget an unfinished packing
  int64_t created = 0;                        // seconds since 1970; 0: now
  std::string version;                        // of the program, for the provenance
  int64_t commit_bytes = int64_t{64} << 20;   // of text between two commits
  double commit_seconds = 5;                  // or after this time, whichever is first
};

struct PackProgress {
  uint64_t bytes_read = 0;   // of the inputs as they are on disk
  uint64_t bytes_total = 0;  // 0: unknown (standard input)
  int64_t documents = 0, tokens = 0;
  double seconds = 0;
  double bytes_per_second = 0;
  double seconds_left = -1;  // -1: unknown
};

struct PackResult {
  int64_t documents = 0, tokens = 0, text_bytes = 0;
  int64_t empty = 0, cut = 0, replaced = 0;  // see TextCounts
  int64_t inputs = 0;
  int64_t passed_over = 0;        // files of folders with other names
  int64_t resumed_documents = 0;  // that an earlier, unfinished run had packed
  double seconds = 0;
};

// Usage errors: no inputs, OUT exists, impossible options. Data errors: unreadable or bad input
// (file and position), full disk, an unfinished packing of something else. Says in the log what it
// goes on with. `progress` is called from the calling thread, about twice a second.
PackResult pack(const PackOptions& options, const TextEncoder& encoder,
                const std::function<void(const PackProgress&)>& progress = {});

}  // namespace shoestring

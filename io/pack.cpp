#include "io/pack.h"

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/counted.h"
#include "core/log.h"
#include "core/text.h"
#include "io/pack_journal.h"
#include "io/pack_reader.h"
#include "io/token_store_writer.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

// Text, ids of four bytes, stored ids and what a tokenizer needs while it works: bytes of memory
// that are set aside for each byte of text in flight.
constexpr int64_t kMemoryPerByte = 16;
constexpr int64_t kLeastMemory = int64_t{32} << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

Json describe_options(const PackOptions& options) {
  const char* splits[] = {"file", "lines", "blank-lines", "separator"};
  return {{"split", splits[static_cast<int>(options.text.split)]},
          {"separator", options.text.separator},
          {"field", options.text.field},
          {"piece_bytes", options.text.piece_bytes}};
}

// Everything that decides about the ids of documents that are packed already. The policy for bad
// UTF-8 is not part of it: a run that stopped at a bad byte may go on with another policy.
std::string signature(const PackOptions& options, const TextEncoder& encoder) {
  Json json = describe_options(options);
  json["tokenizer"] = encoder.hash;
  json["vocabulary"] = encoder.vocabulary;
  json["end_of_document"] = encoder.end_of_document;
  return json.dump();
}

int64_t bytes_in(const PackState& state) { return state.text_bytes + state.open.text_bytes; }

// The writing side.
class PackWriter {
 public:
  PackWriter(const PackOptions& options, PackJournal& journal, PackState& state,
             int64_t token_bytes)
      : options_(options), journal_(journal), state_(state), token_bytes_(token_bytes) {}

  void write(PackWork& work) {
    std::vector<DocumentRecord> records;
    PackState::Open open = state_.open;
    for (PackItem& item : work.items) {
      journal_.tokens().append(item.ids.data(), item.ids.size());
      open.tokens += static_cast<int64_t>(item.ids.size()) / token_bytes_;
      open.text_bytes = static_cast<int64_t>(item.text_bytes);
      open.text_hash = item.text_hash;
      if (!item.last) continue;
      records.push_back({.tokens = static_cast<uint64_t>(open.tokens),
                         .text_hash = item.text_hash,
                         .text_bytes = item.text_bytes});
      open = {};
    }
    journal_.documents().append(records.data(), records.size() * sizeof(DocumentRecord));
    // Only now, when nothing can fail any more: a commit never promises what is not there.
    state_.open = open;
    for (const DocumentRecord& record : records) {
      state_.tokens += static_cast<int64_t>(record.tokens);
      state_.text_bytes += static_cast<int64_t>(record.text_bytes);
    }
    state_.documents += static_cast<int64_t>(records.size());
    state_.input_documents += static_cast<int64_t>(records.size());
    if (work.at_end) work.at_end();
    const int64_t since = bytes_in(state_) - bytes_in(journal_.state());
    if (since >= options_.commit_bytes || seconds_since(committed_) >= options_.commit_seconds) {
      commit();
    }
  }
  void commit() {
    journal_.commit(state_);
    committed_ = Clock::now();
  }

 private:
  const PackOptions& options_;
  PackJournal& journal_;
  PackState& state_;
  int64_t token_bytes_;
  Clock::time_point committed_ = Clock::now();
};

class ProgressMeter {
 public:
  ProgressMeter(const std::vector<TextInput>& inputs, size_t first,
                const std::function<void(const PackProgress&)>& report)
      : report_(report) {
    for (size_t i = first; i < inputs.size(); ++i) {
      if (inputs[i].path == "-") known_ = false;
      total_ += inputs[i].bytes;
    }
  }
  void update(uint64_t bytes_read, const PackState& state, bool last) {
    if (!report_ || (!last && seconds_since(reported_) < 0.5)) return;
    reported_ = Clock::now();
    PackProgress p{.bytes_read = bytes_read,
                   .bytes_total = known_ ? total_ : 0,
                   .documents = state.documents,
                   .tokens = state.tokens + state.open.tokens,
                   .seconds = seconds_since(start_)};
    p.bytes_per_second = p.seconds > 0 ? static_cast<double>(bytes_read) / p.seconds : 0;
    if (known_ && p.bytes_per_second > 0 && total_ >= bytes_read) {
      p.seconds_left = static_cast<double>(total_ - bytes_read) / p.bytes_per_second;
    }
    report_(p);
  }
  double seconds() const { return seconds_since(start_); }

 private:
  const std::function<void(const PackProgress&)>& report_;
  uint64_t total_ = 0;
  bool known_ = true;
  Clock::time_point start_ = Clock::now(), reported_ = start_;
};

// Replacing is for stores: an --out that names an input or a tokenizer by mistake keeps its file.
bool is_token_store(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string head(22, '\0');
  return in.read(head.data(), 22) && head == "shoestring token store";
}

void check_options(const PackOptions& options, const TextEncoder& encoder) {
  if (options.out.empty()) fail_usage("no output file: name the token store with --out");
  if (!options.overwrite && fs::exists(options.out)) {
    fail_usage(cat(options.out, " exists; choose another --out or add --overwrite"));
  }
  if (fs::exists(options.out) && !is_token_store(options.out)) {
    fail_usage(cat(options.out, " exists and is no token store; it is not overwritten"));
  }
  if (options.threads < 1) fail_usage(cat("cannot pack with ", options.threads, " threads"));
  const int64_t piece = static_cast<int64_t>(options.text.piece_bytes);
  const int64_t least = std::max(kLeastMemory, piece * kMemoryPerByte);
  if (options.memory_bytes < least) {
    constexpr int64_t mebibyte = 1 << 20;
    fail_usage(cat("--memory must be at least ", (least + mebibyte - 1) / mebibyte, "M but is ",
                   counted(options.memory_bytes, "byte")));
  }
  if (encoder.vocabulary < 1 || encoder.end_of_document >= encoder.vocabulary) {
    fail_data(cat("a tokenizer with ", encoder.vocabulary, " ids and the end-of-document id ",
                  encoder.end_of_document));
  }
}

// The finished inputs must still be there, unchanged, at the start of the list.
void check_finished_inputs(const PackState& state, const std::vector<TextInput>& inputs) {
  for (size_t i = 0; i < state.inputs.size(); ++i) {
    const PackedInput& done = state.inputs[i];
    const bool same = i < inputs.size() && inputs[i].path == done.path &&
                      inputs[i].modified == done.modified &&
                      (done.path == "-" || inputs[i].bytes == done.bytes);
    if (!same) {
      fail_data(cat("cannot continue the unfinished packing: its input ", done.path,
                    " has changed or is not input number ", i + 1,
                    " any more; start again with --restart"));
    }
  }
}

// From where an unfinished packing goes on.
void tell_resumed(const std::string& folder, const PackState& state,
                  const std::vector<TextInput>& inputs) {
  if (bytes_in(state) == 0) return;
  std::string text = cat("going on with the unfinished packing in ", folder, ": ",
                         counted(state.tokens + state.open.tokens, "token"), " packed before; ");
  if (state.inputs.size() < inputs.size()) {
    append(text, "from document ", state.input_documents, " of ", inputs[state.inputs.size()].path,
           " on");
    if (state.open.text_bytes > 0) append(text, ", behind its byte ", state.open.text_bytes);
  } else {
    text += "all inputs are done";
  }
  log_info(text);
}

std::vector<DocumentRecord> packed_records(PackJournal& journal) {
  std::vector<DocumentRecord> out(static_cast<size_t>(journal.state().input_documents));
  if (out.empty()) return out;
  const MappedFile file(journal.documents().path());
  const size_t bytes = out.size() * sizeof(DocumentRecord);
  std::memcpy(out.data(), file.data() + file.size() - bytes, bytes);
  return out;
}

std::string provenance(const PackOptions& options, const PackState& state) {
  Json json{{"program", "shoestring"}, {"version", options.version}, {"created", state.created}};
  json["options"] = describe_options(options);
  for (const PackedInput& input : state.inputs) {
    json["inputs"].push_back({{"path", input.path},
                              {"bytes", input.bytes},
                              {"xxh3", hex(input.digest)},
                              {"documents", input.documents},
                              {"empty", input.empty},
                              {"in_pieces", input.cut},
                              {"replaced", input.replaced}});
  }
  // A path may hold any bytes; JSON may not.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void run_pipeline(const PackOptions& options, const TextEncoder& encoder,
                  const std::vector<TextInput>& inputs, PackJournal& journal, PackState& state,
                  ProgressMeter& meter) {
  PackWriter writer(options, journal, state, wide_tokens(encoder.vocabulary) ? 4 : 2);
  // The pipeline joins its threads when it goes, so everything they use lives longer.
  std::unique_ptr<PackReader> reader;
  PackPipeline pipeline(encoder,
                        {.threads = options.threads,
                         .text_bytes = static_cast<size_t>(options.memory_bytes / kMemoryPerByte)});
  reader = std::make_unique<PackReader>(options, inputs, state, pipeline);
  const size_t first = state.inputs.size();
  pipeline.start([&, packed = packed_records(journal)] { reader->run(first, packed); });
  try {
    PackWork work;
    while (pipeline.take(work)) {
      writer.write(work);
      pipeline.release(work.text_bytes);
      meter.update(reader->bytes_read, state, false);
    }
  } catch (const Error&) {
    // Keep what is done: after a bad byte in the input the next run goes on from here. On a full
    // disk this fails too, and the commit before it stands.
    try {
      writer.commit();
    } catch (const Error&) {
    }
    throw;
  }
  writer.commit();
  meter.update(reader->bytes_read, state, true);
}

}  // namespace

PackResult pack(const PackOptions& options, const TextEncoder& encoder,
                const std::function<void(const PackProgress&)>& progress) {
  check_options(options, encoder);
  PackResult result;
  const std::vector<TextInput> inputs =
      list_inputs(options.inputs, options.text.format, &result.passed_over);
  const std::string folder = options.out + ".packing";
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_data(cat("cannot make the folder ", folder, ": ", error.message()));
  const int64_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  PackJournal journal(folder, signature(options, encoder),
                      options.created != 0 ? options.created : now,
                      wide_tokens(encoder.vocabulary) ? 4 : 2, options.restart);
  PackState state = journal.state();
  check_finished_inputs(state, inputs);
  tell_resumed(folder, state, inputs);
  result.resumed_documents = state.documents;
  ProgressMeter meter(inputs, state.inputs.size(), progress);
  try {
    run_pipeline(options, encoder, inputs, journal, state, meter);
    if (state.documents == 0) fail_data("the inputs hold no documents; nothing is written");
  } catch (const Error&) {
    // Nothing was packed, so there is nothing to go on from.
    if (bytes_in(journal.state()) == 0) fs::remove_all(folder, error);
    throw;
  }
  write_token_store(options.out, {.tokens_path = journal.tokens().path(),
                                  .documents_path = journal.documents().path(),
                                  .facts = {.tokenizer_hash = encoder.hash,
                                            .vocabulary = encoder.vocabulary,
                                            .end_of_document = encoder.end_of_document,
                                            .provenance = provenance(options, state)}});
  fs::remove_all(folder, error);
  for (const PackedInput& input : state.inputs) {
    result.empty += input.empty;
    result.cut += input.cut;
    result.replaced += input.replaced;
  }
  result.documents = state.documents;
  result.tokens = state.tokens;
  result.text_bytes = state.text_bytes;
  result.inputs = static_cast<int64_t>(state.inputs.size());
  result.seconds = meter.seconds();
  return result;
}

}  // namespace shoestring

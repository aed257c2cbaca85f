#include "io/pack_journal.h"

#include <xxhash.h>

#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/text.h"
#include "io/token_store.h"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

std::string digest_of(const std::string& text) {
  char hex[24];
  std::snprintf(hex, sizeof hex, "%016" PRIx64, XXH3_64bits(text.data(), text.size()));
  return hex;
}

Json to_json(const PackedInput& input) {
  return {{"kind", "input"},        {"path", input.path},         {"bytes", input.bytes},
          {"digest", input.digest}, {"modified", input.modified}, {"documents", input.documents},
          {"empty", input.empty},   {"cut", input.cut},           {"replaced", input.replaced}};
}

PackedInput input_from(const Json& line) {
  return {.path = line.at("path"),
          .bytes = line.at("bytes"),
          .digest = line.at("digest"),
          .modified = line.at("modified"),
          .documents = line.at("documents"),
          .empty = line.at("empty"),
          .cut = line.at("cut"),
          .replaced = line.at("replaced")};
}

// The whole line at `at` without its digest, or nothing when it is torn or damaged.
std::string whole_line(const std::string& text, size_t at, size_t* next) {
  const size_t end = text.find('\n', at);
  if (end == std::string::npos || end - at < 18) return {};
  std::string body = text.substr(at + 17, end - at - 17);
  if (text.compare(at, 16, digest_of(body)) != 0) return {};
  *next = end + 1;
  return body;
}

}  // namespace

PackJournal::PackJournal(const std::string& folder, const std::string& signature, int64_t created,
                         int64_t token_bytes, bool anew)
    : folder_(folder),
      file_(folder + "/journal", DurableFile::Mode::keep),
      tokens_(folder + "/tokens.raw", DurableFile::Mode::keep),
      documents_(folder + "/documents.raw", DurableFile::Mode::keep) {
  if (!file_.lock()) {
    fail_data(cat("another process is packing into ", folder, "; wait for it or stop it"));
  }
  if (anew) file_.truncate(0);
  recover(signature, created);
  const uint64_t token_end =
      static_cast<uint64_t>((state_.tokens + state_.open.tokens) * token_bytes);
  const uint64_t document_end = static_cast<uint64_t>(state_.documents) * sizeof(DocumentRecord);
  if (tokens_.size() < token_end || documents_.size() < document_end) {
    refuse("its raw files are shorter than its journal says");
  }
  tokens_.truncate(token_end);
  documents_.truncate(document_end);
}

void PackJournal::refuse(const std::string& why) const {
  fail_data(cat("cannot continue the unfinished packing in ", folder_, ": ", why,
                "; start again with --restart"));
}

void PackJournal::recover(const std::string& signature, int64_t created) {
  const std::string text = file_.read_all();
  size_t at = 0, committed = 0;
  std::vector<PackedInput> pending;
  for (size_t next = 0;; at = next) {
    const std::string body = whole_line(text, at, &next);
    if (body.empty()) break;
    const Json line = Json::parse(body);
    const std::string kind = line.at("kind");
    if (kind == "start") {
      if (line.at("signature") != signature) {
        refuse(cat("it was started with ", line.at("signature").get<std::string>(),
                   ", this one is ", signature));
      }
      state_.created = line.at("created");
      committed = next;
    } else if (kind == "input") {
      pending.push_back(input_from(line));
    } else {
      state_.documents = line.at("documents");
      state_.tokens = line.at("tokens");
      state_.text_bytes = line.at("text_bytes");
      state_.input_documents = line.at("input_documents");
      state_.open = {.tokens = line.value("open_tokens", int64_t{0}),
                     .text_bytes = line.value("open_bytes", int64_t{0}),
                     .text_hash = line.value("open_hash", uint64_t{0})};
      for (PackedInput& input : pending) state_.inputs.push_back(std::move(input));
      pending.clear();
      committed = next;
    }
  }
  file_.truncate(committed);
  if (committed > 0) return;
  state_.created = created;
  append_line(Json{{"kind", "start"}, {"created", created}, {"signature", signature}}.dump());
  file_.sync();
}

void PackJournal::append_line(const std::string& json) {
  file_.append(cat(digest_of(json), " ", json, "\n"));
}

void PackJournal::commit(const PackState& state) {
  tokens_.sync();
  documents_.sync();
  for (size_t i = state_.inputs.size(); i < state.inputs.size(); ++i) {
    append_line(to_json(state.inputs[i]).dump());
  }
  append_line(Json{{"kind", "commit"},
                   {"documents", state.documents},
                   {"tokens", state.tokens},
                   {"text_bytes", state.text_bytes},
                   {"input_documents", state.input_documents},
                   {"open_tokens", state.open.tokens},
                   {"open_bytes", state.open.text_bytes},
                   {"open_hash", state.open.text_hash}}
                  .dump());
  file_.sync();
  state_ = state;
}

}  // namespace shoestring

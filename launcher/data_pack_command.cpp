#include "launcher/data_pack_command.h"

#include <unistd.h>

#include <cstdio>
#include <memory>

#include "core/check.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "io/pack.h"
#include "io/tokenizer/encoder.h"
#include "io/tokenizer/tokenizer.h"

namespace shoestring {
namespace {

[[noreturn]] void fail_choice(const char* option, const std::string& value, const char* choices) {
  fail_usage(cat(option, " ", value, ": choose one of ", choices));
}

TextOptions text_options(const DataPackOptions& from) {
  TextOptions to{.separator = from.separator, .field = from.field};
  if (from.format == "text") {
    to.format = TextFormat::text;
  } else if (from.format == "jsonl") {
    to.format = TextFormat::json_lines;
  } else if (from.format != "auto") {
    fail_choice("--format", from.format, "auto, text, jsonl");
  }
  if (!from.separator.empty()) {
    to.split = DocumentSplit::separator;
  } else if (from.split == "lines") {
    to.split = DocumentSplit::lines;
  } else if (from.split == "blank-lines") {
    to.split = DocumentSplit::blank_lines;
  } else if (from.split != "file") {
    fail_choice("--split", from.split, "file, lines, blank-lines");
  }
  if (from.bad_utf8 == "replace") {
    to.bad_utf8 = BadUtf8::replace;
  } else if (from.bad_utf8 == "keep") {
    to.bad_utf8 = BadUtf8::keep;
  } else if (from.bad_utf8 != "error") {
    fail_choice("--bad-utf8", from.bad_utf8, "error, replace, keep");
  }
  return to;
}

int32_t end_of_document(const Tokenizer& tokenizer, const DataPackOptions& options) {
  if (options.end_of_document == "none") return -1;
  if (options.end_of_document.empty()) {
    if (!tokenizer.end_of_text_id()) {
      fail_usage(cat(options.tokenizer, " names no end-of-text token; choose one with ",
                     "--end-of-document TOKEN, or \"none\""));
    }
    return *tokenizer.end_of_text_id();
  }
  const auto id = tokenizer.token_to_id(options.end_of_document);
  if (!id) {
    fail_usage(cat("--end-of-document: ", options.tokenizer, " has no token \"",
                   options.end_of_document, "\""));
  }
  return *id;
}

TextEncoder text_encoder(const Tokenizer& tokenizer, const DataPackOptions& options) {
  return {.make =
              [tokenizer] {
                auto encoder = std::make_shared<Encoder>(tokenizer);
                return [encoder](std::string_view text, std::vector<int32_t>& ids) {
                  // A document that mentions a special token does not end there.
                  encoder->encode(text, ids, {.special_as_text = true});
                };
              },
          .hash = tokenizer.hash(),
          .vocabulary = tokenizer.vocabulary_size(),
          .end_of_document = end_of_document(tokenizer, options)};
}

std::string duration(double seconds) {
  char text[32];
  const long whole = static_cast<long>(seconds + 0.5);
  std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
  return text;
}

// One line that rewrites itself on a terminal, a line every ten seconds elsewhere.
class ProgressLine {
 public:
  void operator()(const PackProgress& p) {
    if (!terminal_ && p.seconds < next_) return;
    next_ = p.seconds + 10;
    char text[160];
    std::snprintf(text, sizeof text, "%.1f%s MB, %.1f MB/s, %lld documents, %lld tokens",
                  static_cast<double>(p.bytes_read) / 1e6, of_total(p).c_str(),
                  p.bytes_per_second / 1e6, static_cast<long long>(p.documents),
                  static_cast<long long>(p.tokens));
    std::string line = text;
    if (p.seconds_left >= 0) append(line, ", ", duration(p.seconds_left), " left");
    if (!terminal_) return log_info(line);
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    open_ = true;
  }
  ~ProgressLine() {
    if (open_) std::fputc('\n', stderr);
  }

 private:
  static std::string of_total(const PackProgress& p) {
    if (p.bytes_total == 0) return "";
    char text[32];
    std::snprintf(text, sizeof text, " of %.1f", static_cast<double>(p.bytes_total) / 1e6);
    return text;
  }
  bool terminal_ = ::isatty(2) == 1;
  bool open_ = false;
  double next_ = 10;
};

std::string summary(const PackResult& r, const std::string& out) {
  std::string text = cat(out, ": ", r.documents, " documents, ", r.tokens, " tokens, ",
                         static_cast<double>(r.text_bytes) / static_cast<double>(r.tokens),
                         " bytes of text a token\n");
  append(text, r.inputs, " inputs, ", r.text_bytes, " bytes of text in ", r.seconds, " s\n");
  if (r.resumed_documents > 0) append(text, r.resumed_documents, " documents were packed before\n");
  if (r.empty > 0) append(text, r.empty, " empty documents were left out\n");
  if (r.replaced > 0) append(text, r.replaced, " broken UTF-8 sequences were replaced\n");
  if (r.passed_over > 0) append(text, r.passed_over, " files that are no text were passed over\n");
  return text;
}

}  // namespace

int64_t parse_bytes(const std::string& text) {
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  const std::string unit = text.substr(digits);
  const int shift = unit.empty()                 ? 0
                    : unit == "k" || unit == "K" ? 10
                    : unit == "M"                ? 20
                    : unit == "G"                ? 30
                    : unit == "T"                ? 40
                                                 : -1;
  if (digits == 0 || digits > 6 + (shift == 0 ? 9 : 0) || shift < 0) {
    fail_usage(cat("\"", text, "\" is no size; write for example 512M or 2G"));
  }
  return std::stoll(text.substr(0, digits)) << shift;
}

std::string data_pack(const DataPackOptions& options) {
  if (options.threads < 0) fail_usage(cat("--threads must be at least 1, not ", options.threads));
  PackOptions pack_options{.inputs = options.inputs,
                           .text = text_options(options),
                           .out = options.out,
                           .threads = options.threads > 0 ? options.threads : hardware_threads(),
                           .memory_bytes = parse_bytes(options.memory),
                           .overwrite = options.overwrite,
                           .restart = options.restart,
                           .version = "0.1.0"};
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  const TextEncoder encoder = text_encoder(tokenizer, options);
  PackResult result;
  {
    ProgressLine line;
    result = pack(pack_options, encoder, [&](const PackProgress& p) {
      if (!options.quiet) line(p);
    });
  }
  constexpr int64_t long_document = 100'000;  // bytes
  if (result.documents == 1 && result.text_bytes > long_document) {
    log_warning(cat(options.out, ": all ", result.text_bytes, " bytes became one document, so ",
                    "that nothing can be held out for validation and the order cannot be mixed; ",
                    "--split blank-lines, --split lines or --separator make more of it"));
  }
  return summary(result, options.out);
}

}  // namespace shoestring

#include "launcher/data_pack_command.h"

#include <cstdio>
#include <memory>

#include "core/check.h"
#include "core/counted.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "io/pack.h"
#include "io/tokenizer/encoder.h"
#include "io/tokenizer/tokenizer.h"
#include "launcher/progress.h"

namespace shoestring {
namespace {

[[noreturn]] void fail_choice(const char* option, const std::string& value, const char* choices) {
  fail_usage(cat(option, " ", value, ": choose one of ", choices));
}

TextOptions text_options(const DataPackOptions& from) {
  TextOptions to{
      .separator = from.separator, .field = from.field, .bad_utf8 = parse_bad_utf8(from.bad_utf8)};
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
                return [encoder](std::string_view text, bool continues, std::vector<int32_t>& ids) {
                  // A document that mentions a special token does not end there.
                  encoder->encode(text, ids, {.special_as_text = true, .continues = continues});
                };
              },
          .hash = tokenizer.hash(),
          .vocabulary = tokenizer.vocabulary_size(),
          .end_of_document = end_of_document(tokenizer, options)};
}

std::string progress_text(const PackProgress& p) {
  const auto megabytes = [](double bytes) { return text_of_fixed(bytes / 1e6, 1); };
  std::string text = megabytes(static_cast<double>(p.bytes_read));
  if (p.bytes_total > 0) append(text, " of ", megabytes(static_cast<double>(p.bytes_total)));
  append(text, " MB  ", megabytes(p.bytes_per_second), " MB/s");
  if (p.seconds_left >= 0) append(text, "  left ", text_of_seconds(p.seconds_left));
  return cat(text, "  ", counted(p.documents, "document"), "  ", counted(p.tokens, "token"));
}

std::string summary(const PackResult& r, const std::string& out) {
  std::string text =
      cat(out, ": ", counted(r.documents, "document"), ", ", counted(r.tokens, "token"), ", ",
          text_of_fixed(static_cast<double>(r.text_bytes) / static_cast<double>(r.tokens), 2),
          " bytes of text a token\n");
  append(text, counted(r.inputs, "input"), ", ", counted(r.text_bytes, "byte"), " of text in ",
         text_of_fixed(r.seconds, 1), " s\n");
  const auto remark = [&text](const char* what, int64_t n, const char* one, const char* several) {
    if (n > 0) append(text, what, counted(n, one, several), "\n");
  };
  remark("left out: ", r.empty, "empty document", "empty documents");
  remark("replaced: ", r.replaced, "broken UTF-8 sequence", "broken UTF-8 sequences");
  remark("passed over: ", r.passed_over, "file that is no text", "files that are no text");
  return text;
}

}  // namespace

BadUtf8 parse_bad_utf8(const std::string& text) {
  if (text == "replace") return BadUtf8::replace;
  if (text == "keep") return BadUtf8::keep;
  if (text != "error") fail_choice("--bad-utf8", text, "error, replace, keep");
  return BadUtf8::error;
}

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
    ProgressLine line(stderr);
    result = pack(pack_options, encoder, [&](const PackProgress& p) {
      if (!options.quiet) line.tick([&p] { return progress_text(p); });
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

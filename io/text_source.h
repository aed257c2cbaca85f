#pragma once
// From the paths a user names to a stream of documents, in bounded memory.
//
//   .txt or any other name   plain text: one document a file unless `split` says otherwise
//   .jsonl, .ndjson          one document a line: the string in `field`
//   folders                  their .txt, .text, .md, .jsonl and .ndjson files, recursively, in the
//                            order of their paths (bytes); other files are counted and passed over
//   -                        standard input, of the kind `format` (plain text by default)
//
// Any of them may be compressed with gzip or zstd (names end in .gz or .zst, so a.jsonl.gz).

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "io/byte_stream.h"
#include "io/text_cut.h"
#include "io/utf8_check.h"

namespace shoestring {

enum class TextFormat { by_name, text, json_lines };

struct TextOptions {
  TextFormat format = TextFormat::by_name;
  DocumentSplit split = DocumentSplit::file;  // of plain text
  std::string separator;                      // for DocumentSplit::separator
  std::string field = "text";                 // of JSON lines
  BadUtf8 bad_utf8 = BadUtf8::error;
  // A larger document is handed on in pieces of this size; at least 64 bytes.
  size_t piece_bytes = size_t{1} << 20;
  // Ends of messages: the options that the caller's user has, ", or use --this". Empty: none.
  std::string bad_utf8_hint = {}, field_hint = {};
};

struct TextInput {
  std::string path;
  TextFormat format = TextFormat::text;  // never by_name
  uint64_t bytes = 0;                    // 0 for standard input
  int64_t modified = 0;                  // time stamp in nanoseconds; 0 for standard input
};

// The files behind the named paths, in order. Data error for a path that does not exist or cannot
// be read, usage error for an empty list. `passed_over` counts files of folders with other names.
std::vector<TextInput> list_inputs(const std::vector<std::string>& paths, TextFormat format,
                                   int64_t* passed_over);

struct TextCounts {
  int64_t documents = 0;  // handed on
  int64_t empty = 0;      // nothing but white space: dropped
  int64_t cut = 0;        // handed on in several pieces
  int64_t replaced = 0;   // broken UTF-8 sequences
  RawFacts raw;
};

// Hands every document of one input to `sink`, on the calling thread. Bytes read so far are passed
// to `progress` about four times a megabyte. Data errors name the file and the position.
TextCounts read_documents(const TextInput& input, const TextOptions& options, const PieceSink& sink,
                          const std::function<void(uint64_t raw_bytes)>& progress = {});

}  // namespace shoestring

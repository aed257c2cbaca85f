#include "io/text_source.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "io/json_lines.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReadBytes = 256 << 10;

std::string plain_name(const fs::path& path) {
  fs::path name = path.filename();
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  return name.extension().string();
}

bool is_json_lines(const fs::path& path) {
  const std::string extension = plain_name(path);
  return extension == ".jsonl" || extension == ".ndjson";
}

bool is_text(const fs::path& path) {
  const std::string extension = plain_name(path);
  return extension == ".txt" || extension == ".text" || extension == ".md";
}

TextInput describe(const fs::path& path, TextFormat format) {
  TextInput input{.path = path.string(), .format = format};
  if (format == TextFormat::by_name) {
    input.format = is_json_lines(path) ? TextFormat::json_lines : TextFormat::text;
  }
  if (path == "-") return input;
  std::error_code error;
  input.bytes = fs::is_regular_file(path, error) ? fs::file_size(path, error) : 0;
  const auto time = fs::last_write_time(path, error);
  if (error) fail_data(cat("cannot read ", path.string(), ": ", error.message()));
  input.modified = std::chrono::nanoseconds(time.time_since_epoch()).count();
  return input;
}

void list_folder(const fs::path& folder, TextFormat format, std::vector<TextInput>& out,
                 int64_t* passed_over) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (!it->is_regular_file(error)) continue;
    const bool wanted = is_text(it->path()) || is_json_lines(it->path());
    if (wanted) found.push_back(it->path());
    if (!wanted && passed_over != nullptr) ++*passed_over;
  }
  if (error) fail_data(cat("cannot list ", folder.string(), ": ", error.message()));
  std::sort(found.begin(), found.end(),
            [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  if (found.empty()) {
    fail_data(cat("the folder ", folder.string(),
                  " holds no .txt, .text, .md, .jsonl or .ndjson files (plain, .gz or .zst)"));
  }
  for (const fs::path& path : found) out.push_back(describe(path, format));
}

void check_options(const TextOptions& options) {
  if (options.split == DocumentSplit::separator && options.separator.empty()) {
    fail_usage("the separator between documents is empty");
  }
  if (options.piece_bytes < 64) fail_usage(cat("pieces of ", options.piece_bytes, " bytes"));
}

// A byte-order mark at the start of a file is no text.
void strip_mark(std::string& text, bool& at_start) {
  if (at_start && text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  at_start = at_start && text.empty();
}

}  // namespace

std::vector<TextInput> list_inputs(const std::vector<std::string>& paths, TextFormat format,
                                   int64_t* passed_over) {
  if (paths.empty()) fail_usage("no input: name files, folders or - for standard input");
  std::vector<TextInput> out;
  for (const std::string& path : paths) {
    std::error_code error;
    if (path != "-" && fs::is_directory(path, error)) {
      list_folder(path, format, out, passed_over);
    } else {
      out.push_back(describe(path, format));
    }
  }
  if (std::count_if(out.begin(), out.end(), [](const auto& i) { return i.path == "-"; }) > 1) {
    fail_usage("standard input (-) is named twice");
  }
  return out;
}

TextCounts read_documents(const TextInput& input, const TextOptions& options, const PieceSink& sink,
                          const std::function<void(uint64_t)>& progress) {
  check_options(options);
  const std::unique_ptr<ByteStream> stream = open_byte_stream(input.path);
  const std::string name = input.path == "-" ? "standard input" : input.path;
  Utf8Check check(name, options.bad_utf8, options.bad_utf8_hint);
  DocumentBuilder builder(options.piece_bytes, sink);
  const bool json = input.format == TextFormat::json_lines;
  JsonLines lines({.path = name,
                   .field = options.field,
                   .replace_bad = options.bad_utf8 != BadUtf8::error,
                   .bad_text_hint = options.bad_utf8_hint,
                   .field_hint = options.field_hint},
                  builder);
  TextCutter cutter(options.split, options.separator, builder);
  std::vector<char> bytes(kReadBytes);
  std::string text;
  bool at_start = true, first = true;
  while (const size_t got = stream->read(bytes.data(), bytes.size())) {
    if (std::exchange(first, false)) refuse_utf16({bytes.data(), got}, name);
    text.clear();
    check.feed({bytes.data(), got}, text);
    strip_mark(text, at_start);
    json ? lines.feed(text) : cutter.feed(text);
    if (progress) progress(stream->raw().bytes);
  }
  text.clear();
  check.finish(text);
  json ? lines.feed(text) : cutter.feed(text);
  json ? lines.finish() : cutter.finish();
  return {.documents = builder.documents(),
          .empty = builder.empty(),
          .cut = builder.cut(),
          .replaced = check.replaced(),
          .raw = stream->raw()};
}

}  // namespace shoestring

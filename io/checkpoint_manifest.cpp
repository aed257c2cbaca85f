#include "io/checkpoint_manifest.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "io/digest.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using Json = nlohmann::json;
constexpr int version_without_boxes = 1, version_with_boxes = 2;
constexpr std::string_view tail_begin = ",\n\"digest\": \"";
constexpr std::string_view tail_end = "\"}\n";
constexpr size_t digest_digits = 32;

// Puts the digest of the text so far in front of the closing brace.
std::string seal(const Json& object) {
  std::string text = object.dump(0);
  text.resize(text.rfind('}'));
  while (text.ends_with('\n')) text.pop_back();
  const std::string digest = digest_of(text);
  append(text, tail_begin, digest, tail_end);
  return text;
}

Json unseal(const std::string& text, const std::string& path) {
  const size_t tail = tail_begin.size() + digest_digits + tail_end.size();
  const size_t body = text.size() < tail ? 0 : text.size() - tail;
  const std::string_view all = text;
  if (text.size() < tail || !all.ends_with(tail_end) ||
      all.substr(body, tail_begin.size()) != tail_begin) {
    fail_data(cat(path, " is cut off or damaged: it does not end with its digest"));
  }
  const std::string_view told = all.substr(body + tail_begin.size(), digest_digits);
  if (told != digest_of(all.substr(0, body))) {
    fail_data(cat(path, " is damaged: its digest is not ", told));
  }
  Json object = Json::parse(text, nullptr, false);
  if (!object.is_object()) fail_data(cat(path, " is not a JSON object"));
  const auto version = object.find("version");
  if (version == object.end() ||
      (*version != version_without_boxes && *version != version_with_boxes)) {
    fail_data(cat(path, " was written by another version of the program: it has no \"version\": ",
                  version_without_boxes, " or ", version_with_boxes));
  }
  return object;
}

bool has_boxes(const StoredFile& file) {
  return std::any_of(file.pieces.begin(), file.pieces.end(),
                     [](const StoredPiece& p) { return p.box.has_value(); });
}

int version_of(bool boxes) { return boxes ? version_with_boxes : version_without_boxes; }

void add_box(const TensorBox& box, Json& piece) {
  Json rows = Json::array();
  for (const RowRun& run : box.rows) rows.push_back({run.global, run.count});
  piece["rows"] = std::move(rows);
  piece["columns"] = {box.first_column, box.columns};
}

Json json_of(const StoredFile& file) {
  Json pieces = Json::array();
  for (const StoredPiece& p : file.pieces) {
    pieces.push_back({{"name", p.name},
                      {"dtype", std::string(name_of(p.dtype))},
                      {"shape", std::vector<int64_t>(p.shape.dims().begin(), p.shape.dims().end())},
                      {"begin", p.begin},
                      {"end", p.end},
                      {"dataset", p.dataset},
                      {"offset", p.offset},
                      {"digest", p.digest}});
    if (p.box) add_box(*p.box, pieces.back());
  }
  return {{"rank", file.rank},
          {"name", file.name},
          {"bytes", file.bytes},
          {"frame_digest", file.frame},
          {"pieces", std::move(pieces)}};
}

constexpr int64_t most_rank = 1 << 24;

// The JSON library would also cast what has a point or does not fit.
int64_t whole_of(const Json& value, const char* key, int64_t most = INT64_MAX) {
  const bool whole = value.is_number_unsigned() || (value.is_number_integer() && value >= 0);
  if (whole && value.get<uint64_t>() <= static_cast<uint64_t>(most)) return value.get<int64_t>();
  fail_data(cat(key, " is ", value.dump(), " but must be a whole number from 0 to ", most));
}

int64_t whole_at(const Json& json, const char* key, int64_t most = INT64_MAX) {
  return whole_of(json.at(key), key, most);
}

Shape shape_of(const Json& json, const std::string& name) {
  std::vector<int64_t> dims;
  for (const Json& dim : json) dims.push_back(whole_of(dim, "shape"));
  if (dims.size() > Shape::max_rank) fail_data(cat("tensor ", name, " has too many dims"));
  int64_t elements = 1, largest = 1;
  for (int64_t d : dims) {
    if (__builtin_mul_overflow(elements, d, &elements) ||
        __builtin_mul_overflow(largest, std::max<int64_t>(d, 1), &largest)) {
      fail_data(cat("tensor ", name, " has an impossible shape"));
    }
  }
  return Shape(std::span<const int64_t>(dims));
}

Dtype dtype_of_text(const std::string& text, const std::string& name) {
  for (int code = 0; code <= static_cast<int>(Dtype::u64); ++code) {
    if (name_of(static_cast<Dtype>(code)) == text) return static_cast<Dtype>(code);
  }
  fail_data(cat("tensor ", name, " has the unknown type ", text));
}

std::pair<int64_t, int64_t> pair_of(const Json& json, const char* key) {
  if (!json.is_array() || json.size() != 2) {
    fail_data(cat(key, " has ", json.dump(), " where two numbers belong"));
  }
  return {whole_of(json[0], key), whole_of(json[1], key)};
}

// The sums of hostile counts may not overflow before complaint_of() has looked at them.
std::optional<TensorBox> box_in(const Json& piece) {
  if (!piece.contains("rows") && !piece.contains("columns")) return std::nullopt;
  TensorBox box;
  std::tie(box.first_column, box.columns) = pair_of(piece.at("columns"), "columns");
  int64_t local = 0;
  for (const Json& run : piece.at("rows")) {
    const auto [global, count] = pair_of(run, "rows");
    box.rows.push_back({.local = local, .global = global, .count = count});
    if (__builtin_add_overflow(local, count, &local)) fail_data("the rows of a box are too many");
  }
  return box;
}

StoredPiece piece_of(const Json& json, uint64_t file_bytes) {
  StoredPiece p;
  p.name = json.at("name").get<std::string>();
  p.shape = shape_of(json.at("shape"), p.name);
  p.dtype = dtype_of_text(json.at("dtype").get<std::string>(), p.name);
  p.begin = whole_at(json, "begin");
  p.end = whole_at(json, "end");
  p.dataset = json.at("dataset").get<std::string>();
  p.offset = static_cast<uint64_t>(whole_at(json, "offset"));
  p.digest = json.at("digest").get<std::string>();
  p.box = box_in(json);
  if (const std::string complaint = complaint_of(p.shape, p.part()); !complaint.empty()) {
    fail_data(cat("tensor ", p.name, " ", p.shape.text(), ": ", complaint));
  }
  if (static_cast<uint64_t>(p.end - p.begin) > file_bytes || p.bytes() > file_bytes ||
      p.offset > file_bytes - p.bytes()) {
    fail_data(cat("tensor ", p.name, " reaches past the end of its file"));
  }
  return p;
}

StoredFile file_of(const Json& json) {
  StoredFile file{.rank = static_cast<int>(whole_at(json, "rank", most_rank)),
                  .name = json.at("name").get<std::string>(),
                  .bytes = static_cast<uint64_t>(whole_at(json, "bytes")),
                  .frame = json.at("frame_digest").get<std::string>(),
                  .pieces = {}};
  if (!file.name.empty() && file.name != name_of_rank_file(file.rank)) {
    fail_data(cat("the file of rank ", file.rank, " is called ", file.name));
  }
  if (file.name.empty() && !json.at("pieces").empty()) {
    fail_data(cat("rank ", file.rank, " has tensors but no file"));
  }
  uint64_t after = 0;
  for (const Json& piece : json.at("pieces")) {
    file.pieces.push_back(piece_of(piece, file.bytes));
    const StoredPiece& p = file.pieces.back();
    if (p.offset < after) fail_data(cat("tensor ", p.name, " overlaps the one before it"));
    after = p.offset + p.bytes();
  }
  return file;
}

// Errors of the JSON library (a missing key, another type) and our own get the file's name.
template <class F>
auto in_file(const std::string& path, F&& read) {
  try {
    return read();
  } catch (const Json::exception& e) {
    fail_data(cat(path, " is not what this program writes: ", e.what()));
  } catch (const Error& e) {
    fail_data(cat(path, ": ", e.what()));
  }
}

}  // namespace

std::string name_of_rank_file(int rank) {
  const std::string digits = cat(rank);
  return cat("rank_", std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0'), digits, ".h5");
}

std::string manifest_text(const Manifest& manifest) {
  Json files = Json::array();
  for (const StoredFile& file : manifest.files) files.push_back(json_of(file));
  const bool boxes = std::any_of(manifest.files.begin(), manifest.files.end(), has_boxes);
  return seal({{"version", version_of(boxes)},
               {"step", manifest.step},
               {"ranks", manifest.files.size()},
               {"config", manifest.config},
               {"state", manifest.state},
               {"files", std::move(files)}});
}

std::string rank_text(const StoredFile& file) {
  return seal({{"version", version_of(has_boxes(file))}, {"file", json_of(file)}});
}

std::string rank_error_text(const std::string& message) {
  return seal({{"version", version_of(false)}, {"error", message}});
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
  const Json json = unseal(text, path);
  return in_file(path, [&] {
    Manifest manifest{.step = whole_at(json, "step"),
                      .config = json.at("config").get<std::string>(),
                      .state = json.at("state").get<std::string>(),
                      .files = {}};
    for (const Json& file : json.at("files")) {
      manifest.files.push_back(file_of(file));
      if (manifest.files.back().rank + 1 != static_cast<int>(manifest.files.size())) {
        fail_data("the files are not one a rank, in order");
      }
    }
    return manifest;
  });
}

StoredFile parse_rank(const std::string& text, const std::string& path) {
  const Json json = unseal(text, path);
  if (json.contains("error") && json["error"].is_string()) {
    fail_data(json["error"].get<std::string>());
  }
  return in_file(path, [&] { return file_of(json.at("file")); });
}

namespace {

// Of the same tensor.
void require_alike(const std::vector<PieceAt>& list, const std::string& path) {
  const PieceAt& first = list.front();
  for (const PieceAt& at : list) {
    if (at.piece->shape == first.piece->shape && at.piece->dtype == first.piece->dtype) continue;
    fail_data(cat(path, ": ranks disagree on the shape or type of tensor ", first.piece->name, ": ",
                  name_of(first.piece->dtype), " ", first.piece->shape.text(), " on rank ",
                  first.file->rank, ", ", name_of(at.piece->dtype), " ", at.piece->shape.text(),
                  " on rank ", at.file->rank));
  }
}

void require_whole(const TensorPieces& tensor, const std::string& path) {
  const auto flaw = tensor.index.flaw();
  if (!flaw) return;
  const StoredPiece& piece = *tensor.pieces.front().piece;
  const std::string about =
      cat(path, ": tensor ", piece.name, " ", piece.shape.text(), " has ",
          flaw->twice() ? "elements twice, from " : "a gap, from ", flaw->begin, " to ", flaw->end);
  if (!flaw->twice()) fail_data(about);
  const auto rank = [&](int number) {
    return tensor.pieces[static_cast<size_t>(number)].file->rank;
  };
  fail_data(cat(about, ": of rank ", rank(flaw->first), " and of rank ", rank(flaw->second)));
}

}  // namespace

std::map<std::string, TensorPieces> pieces_by_tensor(const Manifest& manifest,
                                                     const std::string& path) {
  std::map<std::string, std::vector<PieceAt>> lists;
  for (const StoredFile& file : manifest.files) {
    for (const StoredPiece& p : file.pieces) lists[p.name].push_back({&file, &p});
  }
  std::map<std::string, TensorPieces> tensors;
  for (auto& [name, list] : lists) {
    require_alike(list, path);
    std::vector<BoxRange> parts;
    for (const PieceAt& at : list) parts.push_back(at.piece->part());
    BoxIndex index(list.front().piece->shape, parts);
    const auto made = tensors.try_emplace(name, TensorPieces{std::move(list), std::move(index)});
    require_whole(made.first->second, path);
  }
  return tensors;
}

}  // namespace shoestring

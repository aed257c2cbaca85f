#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>
#include <utility>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "io/convert_elements.h"
#include "io/json_check.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using Json = nlohmann::json;
constexpr uint64_t header_limit = 100'000'000;
constexpr uint64_t length_bytes = 8;

struct TypeFact {
  std::string_view name;
  uint64_t bits;
  std::optional<Dtype> dtype;
};
// In the order in which the reference library ranks them; its files begin with the last.
constexpr std::array<TypeFact, 22> types = {{{"F4", 4, {}},
                                             {"F6_E2M3", 6, {}},
                                             {"F6_E3M2", 6, {}},
                                             {"BOOL", 8, {}},
                                             {"U8", 8, Dtype::u8},
                                             {"I8", 8, Dtype::i8},
                                             {"F8_E5M2", 8, Dtype::f8e5m2},
                                             {"F8_E4M3", 8, Dtype::f8e4m3},
                                             {"F8_E8M0", 8, {}},
                                             {"F8_E4M3FNUZ", 8, {}},
                                             {"F8_E5M2FNUZ", 8, {}},
                                             {"I16", 16, Dtype::i16},
                                             {"U16", 16, Dtype::u16},
                                             {"F16", 16, Dtype::f16},
                                             {"BF16", 16, Dtype::bf16},
                                             {"I32", 32, Dtype::i32},
                                             {"U32", 32, Dtype::u32},
                                             {"F32", 32, Dtype::f32},
                                             {"C64", 64, {}},
                                             {"F64", 64, Dtype::f64},
                                             {"I64", 64, Dtype::i64},
                                             {"U64", 64, Dtype::u64}}};

const TypeFact& fact_of(Dtype dtype) {
  const auto at =
      std::find_if(types.begin(), types.end(), [&](const TypeFact& f) { return f.dtype == dtype; });
  check(at != types.end(), "a type without a name in safetensors");
  return *at;
}

// No header nests deeper than a tensor's lists.
Json parse_strictly(std::string_view text, const std::string& path) {
  constexpr size_t deepest = 3;
  if (text.empty() || text.front() != '{') {
    fail_data(cat(path, " is not a safetensors file: its header does not begin with {"));
  }
  check_json_object(text, path, deepest);
  return Json::parse(text.begin(), text.end());
}

[[noreturn]] void fail_tensor(const std::string& path, const std::string& name,
                              std::string_view what) {
  fail_data(cat(path, ": tensor ", name, ": ", what));
}

std::vector<uint64_t> whole_numbers(const Json& tensor, const char* key, const std::string& path,
                                    const std::string& name) {
  const auto list = tensor.find(key);
  std::vector<uint64_t> numbers;
  if (list == tensor.end() || !list->is_array()) fail_tensor(path, name, cat("no list ", key));
  for (const Json& item : *list) {
    if (!item.is_number_unsigned()) {
      fail_tensor(path, name, cat(key, " holds something that is not a whole number"));
    }
    numbers.push_back(item.get<uint64_t>());
  }
  return numbers;
}

SafetensorsEntry entry_of(const std::string& name, const Json& tensor, uint64_t data_bytes,
                          const std::string& path) {
  if (!tensor.is_object()) fail_tensor(path, name, "its entry is not an object");
  const auto type = tensor.find("dtype");
  if (type == tensor.end() || !type->is_string()) fail_tensor(path, name, "no dtype");
  SafetensorsEntry entry;
  entry.name = name;
  entry.type = type->get<std::string>();
  const auto fact = std::find_if(types.begin(), types.end(),
                                 [&](const TypeFact& f) { return f.name == entry.type; });
  if (fact == types.end()) fail_tensor(path, name, cat("unknown dtype ", entry.type));
  entry.dtype = fact->dtype;
  uint64_t bits = fact->bits;
  for (uint64_t dim : whole_numbers(tensor, "shape", path, name)) {
    if (dim > uint64_t{INT64_MAX} || __builtin_mul_overflow(bits, dim, &bits)) {
      fail_tensor(path, name, cat("an impossible shape, with a dim of ", dim));
    }
    entry.shape.push_back(static_cast<int64_t>(dim));
  }
  const std::vector<uint64_t> range = whole_numbers(tensor, "data_offsets", path, name);
  if (range.size() != 2 || range[0] > range[1] || range[1] > data_bytes) {
    fail_tensor(path, name,
                cat("its data_offsets are not two ascending positions in the ", data_bytes,
                    " bytes of data: the file is truncated or damaged"));
  }
  entry.begin = range[0];
  entry.end = range[1];
  if (bits % 8 != 0 || bits / 8 != entry.end - entry.begin) {
    fail_tensor(
        path, name,
        cat("its shape takes ", bits / 8, " bytes but its data_offsets ", entry.end - entry.begin));
  }
  return entry;
}

std::map<std::string, std::string> metadata_of(const Json& json, const std::string& path) {
  if (!json.is_object()) fail_data(cat(path, ": __metadata__ is not an object"));
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) fail_data(cat(path, ": __metadata__ ", key, " is not a text"));
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

// Tensors tile the data: no hole, no overlap, nothing after the last.
void check_tiling(const SafetensorsHeader& header, uint64_t data_bytes, const std::string& path) {
  uint64_t at = 0;
  for (const SafetensorsEntry& entry : header.tensors) {
    if (entry.begin != at) {
      fail_tensor(
          path, entry.name,
          cat("it begins at byte ", entry.begin, " of the data, but the one before ends at ", at));
    }
    at = entry.end;
  }
  if (at != data_bytes) {
    fail_data(cat(path, ": ", data_bytes, " bytes of data, but the tensors take ", at));
  }
}

std::string quoted(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    fail_data(cat("a name in a safetensors file must be valid UTF-8: ", text));
  }
}

std::string header_text(const std::vector<const SafetensorsEntry*>& order,
                        const std::map<std::string, std::string>& metadata) {
  std::string text = "{\"__metadata__\":{";
  for (const auto& [key, value] : metadata) {
    append(text, text.back() == '{' ? "" : ",", quoted(key), ":", quoted(value));
  }
  text += '}';
  for (const SafetensorsEntry* entry : order) {
    append(text, ",", quoted(entry->name), ":{\"dtype\":\"", entry->type, "\",\"shape\":[");
    for (size_t i = 0; i < entry->shape.size(); ++i) {
      append(text, i == 0 ? "" : ",", entry->shape[i]);
    }
    append(text, "],\"data_offsets\":[", entry->begin, ",", entry->end, "]}");
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

uint64_t header_length(const MappedFile& map, const std::string& path) {
  if (map.size() < length_bytes) {
    fail_data(cat(path, " is not a safetensors file: it has only ",
                  counted(static_cast<int64_t>(map.size()), "byte")));
  }
  uint64_t length = 0;
  std::memcpy(&length, map.data(), sizeof length);
  if (length > header_limit || length > map.size() - length_bytes) {
    fail_data(cat(path, " is not a safetensors file, or is truncated: its header would have ",
                  length, " bytes, the file has ", map.size()));
  }
  return length;
}

}  // namespace

int64_t SafetensorsEntry::elements() const {
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  return count;
}

SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t data_bytes,
                                           const std::string& path) {
  const Json object = parse_strictly(json, path);
  SafetensorsHeader header;
  for (const auto& [name, value] : object.items()) {
    if (name == "__metadata__") {
      header.metadata = metadata_of(value, path);
    } else {
      header.tensors.push_back(entry_of(name, value, data_bytes, path));
    }
  }
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  check_tiling(header, data_bytes, path);
  return header;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path), map_(path) {
  const uint64_t length = header_length(map_, path);
  data_at_ = length_bytes + length;
  const char* text = reinterpret_cast<const char*>(map_.data() + length_bytes);
  header_ = parse_safetensors_header({text, length}, map_.size() - data_at_, path);
  for (size_t i = 0; i < header_.tensors.size(); ++i) index_[header_.tensors[i].name] = i;
}

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto at = index_.find(name);
  if (at == index_.end()) fail_data(cat(path_, " holds no tensor ", name));
  return header_.tensors[at->second];
}

const std::byte* SafetensorsFile::data(const SafetensorsEntry& entry) const {
  return reinterpret_cast<const std::byte*>(map_.data() + data_at_ + entry.begin);
}

void SafetensorsFile::read(const std::string& name, int64_t begin, int64_t end, Dtype to,
                           std::byte* out) const {
  const SafetensorsEntry& e = entry(name);
  if (!e.dtype) fail_data(cat(path_, ": tensor ", name, " is ", e.type, ", which is not read"));
  if (begin < 0 || begin > end || end > e.elements()) {
    fail(cat("elements ", begin, " to ", end, " are not in tensor ", name, ", which has ",
             e.elements()));
  }
  const std::byte* from = data(e) + static_cast<size_t>(begin) * size_of(*e.dtype);
  convert_elements(from, *e.dtype, end - begin, to, out);
}

void SafetensorsFile::release(const SafetensorsEntry& entry, int64_t begin, int64_t end) const {
  if (!entry.dtype) return;
  const uint64_t width = size_of(*entry.dtype);
  map_.release(data_at_ + entry.begin + static_cast<uint64_t>(begin) * width,
               static_cast<uint64_t>(end - begin) * width);
}

SafetensorsWriter::SafetensorsWriter(const std::string& path,
                                     const std::vector<SafetensorsSpec>& tensors,
                                     std::map<std::string, std::string> metadata)
    : path_(path), remove_(path + ".part"), file_(path + ".part", DurableFile::Mode::create) {
  metadata.emplace("format", "pt");
  for (const SafetensorsSpec& spec : tensors) {
    SafetensorsEntry entry{.name = spec.name,
                           .type = std::string(fact_of(spec.dtype).name),
                           .dtype = spec.dtype,
                           .shape = spec.shape};
    missing_[spec.name] = entry.elements();
    if (spec.name == "__metadata__" || !entries_.emplace(spec.name, std::move(entry)).second) {
      fail(cat("a safetensors file cannot hold two tensors ", spec.name));
    }
  }
  // The highest types first, so that each tensor is aligned; equal ones by name.
  std::vector<const SafetensorsEntry*> order;
  for (const auto& [name, entry] : entries_) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(),
                   [](const SafetensorsEntry* a, const SafetensorsEntry* b) {
                     return &fact_of(*a->dtype) > &fact_of(*b->dtype);
                   });
  uint64_t at = 0;
  for (const SafetensorsEntry* constant : order) {
    SafetensorsEntry& entry = entries_.at(constant->name);
    entry.begin = at;
    at += static_cast<uint64_t>(entry.elements()) * size_of(*entry.dtype);
    entry.end = at;
  }
  const std::string text = header_text(order, metadata);
  const uint64_t length = text.size();
  data_at_ = length_bytes + length;
  if (length > header_limit) fail_data(cat(path, ": the header would have ", length, " bytes"));
  file_.reserve(data_at_ + at);
  file_.write_at(0, &length, sizeof length);
  file_.write_at(length_bytes, text.data(), text.size());
}

void SafetensorsWriter::write(const std::string& name, int64_t begin, int64_t count,
                              const std::byte* data) {
  const auto at = entries_.find(name);
  if (at == entries_.end() || begin < 0 || count < 0 || begin > at->second.elements() - count) {
    fail(cat("elements ", begin, " to ", begin + count, " are not in a tensor ", name));
  }
  const size_t width = size_of(*at->second.dtype);
  file_.write_at(data_at_ + at->second.begin + static_cast<uint64_t>(begin) * width, data,
                 static_cast<size_t>(count) * width);
  missing_[name] -= count;
}

void SafetensorsWriter::finish() {
  for (const auto& [name, count] : missing_) {
    if (count != 0) fail(cat(path_, ": ", count, " elements of tensor ", name, " are missing"));
  }
  file_.sync();
  file_.close();
  rename_durably(path_ + ".part", path_);
  remove_.keep();
}

}  // namespace shoestring

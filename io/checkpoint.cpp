#include "io/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>

#include "core/check.h"
#include "core/log.h"
#include "core/text.h"
#include "io/checkpoint_file.h"
#include "io/checkpoint_folder.h"
#include "io/checkpoint_manifest.h"
#include "io/convert_elements.h"
#include "io/digest.h"
#include "io/durable_file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t manifest_limit = uint64_t{1} << 28;
// Looked at and let go, so that a model larger than the memory can be read.
constexpr uint64_t window_bytes = uint64_t{1} << 26;

// The tensor whose bytes begin the part of a file that is missing.
std::string first_cut(const StoredFile& file, uint64_t bytes) {
  for (const StoredPiece& p : file.pieces) {
    if (p.offset + p.bytes() > bytes) return cat("tensor ", p.name, " is not whole");
  }
  return "its end is missing";
}

void require_size(const StoredFile& file, const std::string& path, const MappedFile& map) {
  if (map.size() == file.bytes) return;
  fail_data(cat(path, " has ", map.size(), " bytes but was written with ", file.bytes, ": ",
                map.size() < file.bytes ? first_cut(file, map.size()) : "something was added"));
}

void verify_piece(const StoredPiece& p, const std::string& path, const MappedFile& map) {
  Digest digest;
  for (uint64_t at = 0; at < p.bytes(); at += window_bytes) {
    const uint64_t bytes = std::min(window_bytes, p.bytes() - at);
    digest.add(map.data() + p.offset + at, bytes);
    map.release(p.offset + at, bytes);
  }
  if (digest.text() == p.digest) return;
  fail_data(cat(path, ": tensor ", p.name, " (", text_of(p.part()), ", bytes ", p.offset, " to ",
                p.offset + p.bytes(), ") is damaged"));
}

// Goes through a checkpoint's bytes from front to end: consecutive pieces, nearly equal shares.
class ShareOfBytes {
 public:
  ShareOfBytes(const Manifest& manifest, VerifiedShare share) : share_(share) {
    uint64_t all = 0;
    for (const StoredFile& file : manifest.files) {
      for (const StoredPiece& p : file.pieces) all += p.bytes();
    }
    size_ = all / static_cast<uint64_t>(share.ranks) + 1;
  }
  bool has(const StoredFile& file) const { return file.rank % share_.ranks == share_.rank; }
  bool has_next(const StoredPiece& piece) {
    const uint64_t begin = std::exchange(at_, at_ + piece.bytes());
    return begin / size_ == static_cast<uint64_t>(share_.rank);
  }

 private:
  VerifiedShare share_;
  uint64_t size_ = 1, at_ = 0;
};

bool is_step_folder(const std::string& path) {
  const std::string name = fs::path(path).lexically_normal().filename().string();
  return fs::exists(path + "/manifest.json") || name.starts_with("step_");
}

}  // namespace

struct Checkpoint::State {
  std::string path;
  Manifest manifest;
  std::map<std::string, TensorPieces> tensors;
  std::map<const StoredFile*, std::unique_ptr<MappedFile>> files;
  int64_t bytes_verified = 0;
  mutable std::atomic<int64_t> bytes_read = 0;

  const TensorPieces& tensor(const std::string& name) const {
    const auto at = tensors.find(name);
    if (at == tensors.end()) fail_data(cat(path, " holds no tensor ", name));
    return at->second;
  }

  const StoredPiece& any_piece(const std::string& name) const {
    return *tensor(name).pieces.front().piece;
  }

  explicit State(const std::string& folder, VerifiedShare share = {}) : path(folder) {
    const std::string manifest_path = folder + "/manifest.json";
    if (!fs::exists(manifest_path))
      fail_data(cat(folder, " is unfinished: it has no manifest.json"));
    manifest = parse_manifest(read_small_file(manifest_path, manifest_limit), manifest_path);
    tensors = pieces_by_tensor(manifest, manifest_path);
    ShareOfBytes own(manifest, share);
    for (const StoredFile& file : manifest.files) {
      if (file.name.empty()) continue;
      const std::string file_path = folder + "/" + file.name;
      auto map = std::make_unique<MappedFile>(file_path);
      require_size(file, file_path, *map);
      verify(file, file_path, *map, own);
      files.emplace(&file, std::move(map));
    }
  }

  void verify(const StoredFile& file, const std::string& file_path, const MappedFile& map,
              ShareOfBytes& own) {
    for (const StoredPiece& p : file.pieces) {
      if (!own.has_next(p)) continue;
      verify_piece(p, file_path, map);
      bytes_verified += static_cast<int64_t>(p.bytes());
    }
    if (own.has(file) && frame_digest(file, map.data()) != file.frame) {
      fail_data(cat(file_path, " is damaged outside of its tensors"));
    }
  }
};

// A problem is told once: as a warning where an older checkpoint will do, else in the error.
std::optional<Checkpoint> Checkpoint::find(const Search& search) {
  const CheckpointFolder folder(search.directory);
  std::vector<int64_t> steps = folder.steps();
  std::erase_if(steps, [&](int64_t step) { return step > search.newest; });
  if (steps.empty()) return std::nullopt;
  std::vector<std::pair<int64_t, std::string>> broken;
  std::optional<Checkpoint> found;
  for (auto at = steps.rbegin(); at != steps.rend() && !found; ++at) {
    try {
      found = Checkpoint(std::make_shared<State>(folder.final_path(*at), search.share));
    } catch (const Error& e) {
      broken.emplace_back(*at, e.what());
    }
  }
  if (!found) {
    std::string list;
    for (const auto& [step, problem] : broken) append(list, "\n  ", problem);
    fail_data(cat("none of the checkpoints in ", search.directory, " can be used:", list,
                  "\nput back a good copy of one, or ", search.remedy));
  }
  for (const auto& [step, problem] : broken) {
    if (!search.warn) break;
    search.warn(cat("the checkpoint of step ", step, " is passed over: ", problem));
  }
  return found;
}

std::optional<Checkpoint> Checkpoint::latest(const std::string& directory,
                                             const std::function<void(const std::string&)>& warn,
                                             int64_t newest, VerifiedShare share) {
  return find({.directory = directory,
               .warn = warn,
               .newest = newest,
               .remedy = "remove that folder to start from the beginning",
               .share = share});
}

Checkpoint Checkpoint::open(const std::string& path) {
  if (!fs::exists(path)) fail_data(cat("there is no checkpoint ", path));
  if (is_step_folder(path)) return Checkpoint(std::make_shared<State>(path));
  for (const std::string& directory : {path, path + "/checkpoints"}) {
    if (auto found = find({.directory = directory,
                           .warn = [](const std::string& text) { log_warning(text); },
                           .newest = std::numeric_limits<int64_t>::max(),
                           .remedy = "name another run or checkpoint"})) {
      return *found;
    }
  }
  fail_data(cat(path,
                " holds no checkpoint: name a run's folder, its checkpoints folder or one of "
                "the step_ folders in it"));
}

const std::string& Checkpoint::path() const { return state_->path; }
int64_t Checkpoint::step() const { return state_->manifest.step; }
const std::string& Checkpoint::config() const { return state_->manifest.config; }
const std::string& Checkpoint::state() const { return state_->manifest.state; }
bool Checkpoint::has(const std::string& name) const { return state_->tensors.contains(name); }

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> list;
  for (const auto& [name, pieces] : state_->tensors) list.push_back(name);
  return list;
}

const Shape& Checkpoint::shape(const std::string& name) const {
  return state_->any_piece(name).shape;
}

Dtype Checkpoint::dtype(const std::string& name) const { return state_->any_piece(name).dtype; }

void Checkpoint::read(const std::string& name, int64_t begin, int64_t end, Dtype to,
                      std::byte* out) const {
  read_box(name, {.box = {}, .begin = begin, .end = end}, to, out);
}

void Checkpoint::read_box(const std::string& name, const BoxRange& part, Dtype to,
                          std::byte* out) const {
  const TensorPieces& tensor = state_->tensor(name);
  const Dtype stored = dtype(name);
  const auto from_size = static_cast<int64_t>(size_of(stored));
  const auto to_size = static_cast<int64_t>(size_of(to));
  if (const std::string complaint = complaint_of(shape(name), part); !complaint.empty()) {
    fail(cat("tensor ", name, " ", shape(name).text(), ": ", complaint));
  }
  tensor.index.for_each_copy(part, [&](BoxIndex::Copy c) {
    const PieceAt& at = tensor.pieces[c.piece];
    const MappedFile& map = *state_->files.at(at.file);
    const uint64_t offset = at.piece->offset + static_cast<uint64_t>(c.from * from_size);
    const auto* from = reinterpret_cast<const std::byte*>(map.data() + offset);
    const int64_t elements = c.rows * c.columns, span = (c.rows - 1) * c.from_stride + c.columns;
    state_->bytes_read += elements * from_size;
    if (c.from_stride == c.columns && c.to_stride == c.columns) c.columns = elements, c.rows = 1;
    for (int64_t row = 0; row < c.rows; ++row) {
      convert_elements(from + row * c.from_stride * from_size, stored, c.columns, to,
                       out + (c.to + row * c.to_stride) * to_size);
    }
    map.release(offset, static_cast<uint64_t>(span * from_size));
  });
}

int64_t Checkpoint::bytes_read() const { return state_->bytes_read; }
int64_t Checkpoint::bytes_verified() const { return state_->bytes_verified; }

std::string compare_tensors(const Checkpoint& checkpoint,
                            const std::vector<std::pair<std::string, Shape>>& wanted,
                            const std::string& prefix) {
  std::vector<std::string> lines;
  std::map<std::string, Shape> left(wanted.begin(), wanted.end());
  for (const auto& [name, shape] : left) {
    if (!checkpoint.has(name)) {
      lines.push_back(cat(name, " ", shape.text(), " is missing in the checkpoint"));
    } else if (checkpoint.shape(name) != shape) {
      lines.push_back(cat(name, " is ", checkpoint.shape(name).text(),
                          " in the checkpoint but should be ", shape.text()));
    }
  }
  for (const std::string& name : checkpoint.names()) {
    if (name.starts_with(prefix) && !left.contains(name)) {
      lines.push_back(
          cat(name, " ", checkpoint.shape(name).text(), " is in the checkpoint but not expected"));
    }
  }
  std::string text;
  for (const std::string& line : lines) append(text, text.empty() ? "" : "\n", line);
  return text;
}

}  // namespace shoestring

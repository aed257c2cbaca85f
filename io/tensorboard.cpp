#include "io/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr std::array<uint32_t, 256> crc_table = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? 0x82F63B78u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  return table;
}();

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t c = crc32c(bytes);
  return ((c >> 15) | (c << 17)) + 0xA282EAD8u;
}

template <class T>
void put(std::string& out, T value) {  // little-endian
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

// A length-delimited protobuf field; `tag` is the field's number and wire type in one byte.
void put_bytes(std::string& out, char tag, std::string_view bytes) {
  out.push_back(tag);
  put_varint(out, bytes.size());
  out.append(bytes);
}

std::string event_head(double wall_time) {
  std::string event(1, '\x09');
  put(event, std::bit_cast<uint64_t>(wall_time));
  return event;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = 0xFFFFFFFFu;
  for (char b : bytes) c = crc_table[(c ^ static_cast<uint8_t>(b)) & 0xFF] ^ (c >> 8);
  return c ^ 0xFFFFFFFFu;
}

std::string tfrecord(std::string_view data) {
  std::string record;
  put(record, static_cast<uint64_t>(data.size()));
  put(record, masked_crc(record));
  record.append(data);
  put(record, masked_crc(data));
  return record;
}

std::string version_event(double wall_time) {
  std::string event = event_head(wall_time);
  put_bytes(event, '\x1a', "brain.Event:2");
  return event;
}

std::string restart_event(double wall_time, int64_t step) {
  std::string event = event_head(wall_time);
  event.push_back('\x10');
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, '\x3a', "\x08\x01");  // SessionLog with status START
  return event;
}

std::string scalar_event(double wall_time, int64_t step, std::string_view tag, float value) {
  std::string item;
  put_bytes(item, '\x0a', tag);
  item.push_back('\x15');
  put(item, std::bit_cast<uint32_t>(value));
  std::string summary;
  put_bytes(summary, '\x0a', item);
  std::string event = event_head(wall_time);
  event.push_back('\x10');
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, '\x2a', summary);
  return event;
}

TensorboardWriter::TensorboardWriter(const std::string& directory, int64_t first_step) {
  std::filesystem::create_directories(directory);
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  char host[256] = "host";
  ::gethostname(host, sizeof(host) - 1);
  path_ = cat(directory, "/events.out.tfevents.", static_cast<int64_t>(now), ".",
              static_cast<const char*>(host), ".", ::getpid(), ".0");
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file_ < 0) fail_data(cat(path_, ": cannot be created: ", std::strerror(errno)));
  std::string head = tfrecord(version_event(now));
  if (first_step > 0) head += tfrecord(restart_event(now, first_step));
  if (::write(file_, head.data(), head.size()) != static_cast<ssize_t>(head.size())) {
    ::close(file_);
    fail_data(cat(path_, ": cannot be written: ", std::strerror(errno)));
  }
}

TensorboardWriter::~TensorboardWriter() {
  if (file_ >= 0) ::close(file_);
}

void TensorboardWriter::scalar(std::string_view tag, double value, int64_t step, double wall_time) {
  const std::string record =
      tfrecord(scalar_event(wall_time, step, tag, static_cast<float>(value)));
  if (::write(file_, record.data(), record.size()) != static_cast<ssize_t>(record.size())) {
    fail_data(cat(path_, ": cannot be written: ", std::strerror(errno)));
  }
}

}  // namespace shoestring

#pragma once
// TensorBoard event files: scalars as TFRecords of hand-encoded protobuf messages. The format is
// TensorFlow's core/util/event.proto; a record is length, masked CRC-32C of the length, data,
// masked CRC-32C of the data.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace shoestring {

// CRC-32C (Castagnoli): crc32c("123456789") == 0xE3069283.
uint32_t crc32c(std::string_view bytes);
// One framed record.
std::string tfrecord(std::string_view data);
// The Event messages, unframed.
std::string version_event(double wall_time);
// A new start of the run, which replaces the events of this step and of later ones.
std::string restart_event(double wall_time, int64_t step);
std::string scalar_event(double wall_time, int64_t step, std::string_view tag, float value);

class TensorboardWriter {
 public:
  // Creates events.out.tfevents.<seconds>.<host>.<pid>.0 in `directory`.
  // `first_step`: readers drop what earlier files tell of it and of later steps; 0: nothing.
  explicit TensorboardWriter(const std::string& directory, int64_t first_step = 0);
  ~TensorboardWriter();
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;
  void scalar(std::string_view tag, double value, int64_t step, double wall_time);

 private:
  std::string path_;
  int file_ = -1;
};

}  // namespace shoestring

#pragma once
// One reader, several encoders, one writer: text becomes token bytes on all cores, in order, with a
// bound on the text in flight.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace shoestring {

// Appends the ids of a document; with `continues` the text is a later piece of one.
using EncodeText =
    std::function<void(std::string_view text, bool continues, std::vector<int32_t>& ids)>;

// What packing needs to know of a tokenizer.
struct TextEncoder {
  std::function<EncodeText()> make;  // called once by each encoding thread
  std::string hash;
  int64_t vocabulary = 0;
  int32_t end_of_document = -1;  // appended to every document; -1: nothing
};

// A document or a piece of one.
struct PackItem {
  std::string text;
  bool first = true;  // of its document
  bool last = true;
  uint64_t text_hash = 0;    // of the document from its begin to the end of this piece
  uint64_t text_bytes = 0;   // likewise
  std::vector<uint8_t> ids;  // little-endian, 2 or 4 bytes each: filled by the encoders
};

// The unit of work. An end of input travels as a mark behind the last item, in order.
struct PackWork {
  std::vector<PackItem> items;
  size_t text_bytes = 0;
  std::function<void()> at_end;  // called by the writer after the items; may be empty
};

class PackPipeline {
 public:
  struct Limits {
    int threads = 1;
    size_t text_bytes = 0;  // in flight; one piece may always pass
  };
  PackPipeline(const TextEncoder& encoder, Limits limits);
  ~PackPipeline();  // stops and joins

  // Reader side: waits while too much is in flight. Throws Stopped when the other side has failed.
  struct Stopped {};
  void put(PackWork&& work);
  // Starts the reader: `read` calls put(); its exceptions reach take().
  void start(std::function<void()> read);

  // Writer side: the next work in the order of put(). False at the end. Rethrows the first error of
  // the reader and the encoders, after all work before it has been taken.
  bool take(PackWork& work);
  // The work is written: its memory is free for others.
  void release(size_t text_bytes);

 private:
  void encode_all();
  void encode(const EncodeText& encode_text, PackItem& item) const;
  void fail_at(uint64_t number, std::exception_ptr error);

  const TextEncoder& encoder_;
  Limits limits_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<uint64_t, PackWork>> waiting_;
  std::map<uint64_t, PackWork> encoded_;
  std::map<uint64_t, std::exception_ptr> errors_;  // by the number of the work that is missing
  uint64_t put_ = 0, taken_ = 0;
  size_t in_flight_ = 0;
  bool finished_ = false, stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace shoestring

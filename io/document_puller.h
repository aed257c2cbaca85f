#pragma once
// Documents one by one, for a caller that asks for them: a thread reads ahead, a few pieces at
// most.

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "io/text_source.h"

namespace shoestring {

class DocumentPuller {
 public:
  // A document larger than options.piece_bytes comes as several.
  DocumentPuller(std::vector<TextInput> inputs, TextOptions options);
  ~DocumentPuller();
  DocumentPuller(const DocumentPuller&) = delete;
  DocumentPuller& operator=(const DocumentPuller&) = delete;

  // False at the end of the last input. Rethrows the reader's data errors.
  bool next(std::string& document);

 private:
  void read_all();
  void put(std::string&& text);

  std::vector<TextInput> inputs_;
  TextOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> waiting_;
  size_t waiting_bytes_ = 0;
  bool finished_ = false, stopped_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace shoestring

#include "io/document_puller.h"

namespace shoestring {
namespace {

struct Stopped {};

}  // namespace

DocumentPuller::DocumentPuller(std::vector<TextInput> inputs, TextOptions options)
    : inputs_(std::move(inputs)), options_(std::move(options)), thread_([this] { read_all(); }) {}

DocumentPuller::~DocumentPuller() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool DocumentPuller::next(std::string& document) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return finished_ || !waiting_.empty(); });
  if (waiting_.empty()) {
    if (error_) std::rethrow_exception(error_);
    return false;
  }
  document = std::move(waiting_.front());
  waiting_.pop_front();
  waiting_bytes_ -= document.size();
  changed_.notify_all();
  return true;
}

void DocumentPuller::put(std::string&& text) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return stopped_ || waiting_.empty() ||
           (waiting_bytes_ + text.size() <= 2 * options_.piece_bytes && waiting_.size() < 10000);
  });
  if (stopped_) throw Stopped();
  waiting_bytes_ += text.size();
  waiting_.push_back(std::move(text));
  changed_.notify_all();
}

void DocumentPuller::read_all() {
  std::exception_ptr error;
  try {
    for (const TextInput& input : inputs_) {
      read_documents(input, options_, [this](TextPiece&& piece) { put(std::move(piece.text)); });
    }
  } catch (const Stopped&) {
    return;
  } catch (...) {
    error = std::current_exception();
  }
  std::lock_guard lock(mutex_);
  error_ = error;
  finished_ = true;
  changed_.notify_all();
}

}  // namespace shoestring

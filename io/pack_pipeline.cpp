#include "io/pack_pipeline.h"

#include <cstring>

#include "core/check.h"
#include "core/text.h"
#include "io/token_store.h"

namespace shoestring {

PackPipeline::PackPipeline(const TextEncoder& encoder, Limits limits)
    : encoder_(encoder), limits_(limits) {
  for (int t = 0; t < limits_.threads; ++t) threads_.emplace_back([this] { encode_all(); });
}

PackPipeline::~PackPipeline() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void PackPipeline::start(std::function<void()> read) {
  threads_.emplace_back([this, read = std::move(read)] {
    try {
      read();
    } catch (const Stopped&) {
      return;
    } catch (...) {
      fail_at(put_, std::current_exception());
    }
    std::lock_guard lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  });
}

void PackPipeline::put(PackWork&& work) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return stopped_ || in_flight_ == 0 || in_flight_ + work.text_bytes <= limits_.text_bytes;
  });
  if (stopped_) throw Stopped();
  in_flight_ += work.text_bytes;
  waiting_.emplace_back(put_++, std::move(work));
  changed_.notify_all();
}

bool PackPipeline::take(PackWork& work) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return encoded_.contains(taken_) || errors_.contains(taken_) || (finished_ && taken_ == put_);
  });
  if (errors_.contains(taken_)) std::rethrow_exception(errors_[taken_]);
  if (!encoded_.contains(taken_)) return false;
  work = std::move(encoded_[taken_]);
  encoded_.erase(taken_++);
  return true;
}

void PackPipeline::release(size_t text_bytes) {
  std::lock_guard lock(mutex_);
  in_flight_ -= text_bytes;
  changed_.notify_all();
}

void PackPipeline::fail_at(uint64_t number, std::exception_ptr error) {
  std::lock_guard lock(mutex_);
  errors_[number] = std::move(error);
  changed_.notify_all();
}

void PackPipeline::encode_all() {
  EncodeText encode_text;
  while (true) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || !waiting_.empty(); });
    if (stopped_) return;
    auto [number, work] = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    try {
      if (!encode_text) encode_text = encoder_.make();
      for (PackItem& item : work.items) encode(encode_text, item);
    } catch (...) {
      fail_at(number, std::current_exception());
      continue;
    }
    lock.lock();
    encoded_.emplace(number, std::move(work));
    changed_.notify_all();
  }
}

void PackPipeline::encode(const EncodeText& encode_text, PackItem& item) const {
  std::vector<int32_t> ids;
  encode_text(item.text, !item.first, ids);
  item.text = std::string();
  if (item.last && encoder_.end_of_document >= 0) ids.push_back(encoder_.end_of_document);
  const size_t bytes = wide_tokens(encoder_.vocabulary) ? 4 : 2;
  item.ids.resize(ids.size() * bytes);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= encoder_.vocabulary) {
      fail_data(cat("the tokenizer gave the id ", ids[i], ", but its vocabulary has only ",
                    encoder_.vocabulary, " ids; its files do not belong together"));
    }
    std::memcpy(item.ids.data() + i * bytes, &ids[i], bytes);
  }
}

}  // namespace shoestring

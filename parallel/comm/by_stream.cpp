#include "parallel/comm/by_stream.h"

#include <utility>

namespace shoestring {
namespace {

class ByStream : public Communicator {
 public:
  ByStream(Communicator& usual, Communicator& other, const Stream* const* stream)
      : usual_(&usual), other_(&other), stream_(stream) {}
  ByStream(std::unique_ptr<Communicator> usual, std::unique_ptr<Communicator> other,
           const Stream* const* stream)
      : ByStream(*usual, *other, stream) {
    owned_ = {std::move(usual), std::move(other)};
  }

  int rank() const override { return usual_->rank(); }
  int size() const override { return usual_->size(); }
  const std::string& name() const override { return usual_->name(); }
  void all_reduce(Buffer inout, Reduce reduce, Stream& stream) override {
    of(stream).all_reduce(inout, reduce, stream);
  }
  void reduce_scatter(View in, std::span<const int64_t> counts, Buffer out, Reduce reduce,
                      Stream& stream) override {
    of(stream).reduce_scatter(in, counts, out, reduce, stream);
  }
  void all_gather(View in, std::span<const int64_t> counts, Buffer out, Stream& stream) override {
    of(stream).all_gather(in, counts, out, stream);
  }
  void all_to_all(View in, std::span<const int64_t> in_counts, Buffer out,
                  std::span<const int64_t> out_counts, Stream& stream) override {
    of(stream).all_to_all(in, in_counts, out, out_counts, stream);
  }
  void broadcast(Buffer inout, int root, Stream& stream) override {
    of(stream).broadcast(inout, root, stream);
  }
  void exchange(std::span<const Transfer> transfers, Stream& stream) override {
    of(stream).exchange(transfers, stream);
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    auto usual = usual_->split(color, key), other = other_->split(color, key);
    if (usual == nullptr) return nullptr;
    return std::make_unique<ByStream>(std::move(usual), std::move(other), stream_);
  }
  void abort(std::string_view reason) noexcept override {
    usual_->abort(reason);
    other_->abort(reason);
  }

 private:
  Communicator& of(const Stream& stream) { return &stream == *stream_ ? *other_ : *usual_; }

  std::pair<std::unique_ptr<Communicator>, std::unique_ptr<Communicator>> owned_;
  Communicator *usual_, *other_;
  const Stream* const* stream_;
};

}  // namespace

std::unique_ptr<Communicator> by_stream(Communicator& usual, Communicator& other,
                                        const Stream* const* stream) {
  return std::make_unique<ByStream>(usual, other, stream);
}

}  // namespace shoestring

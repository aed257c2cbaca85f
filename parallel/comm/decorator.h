#pragma once
// A communicator around another one that looks at each call before and after it. The inner one
// outlives it, except that splits own theirs.

#include "parallel/comm/collectives.h"

namespace shoestring {

class Decorator : public Communicator {
 public:
  explicit Decorator(Communicator& inner) : inner_(&inner) {}
  explicit Decorator(std::unique_ptr<Communicator> inner)
      : owned_(std::move(inner)), inner_(owned_.get()) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& name() const override { return inner_->name(); }
  void all_reduce(Buffer inout, Reduce reduce, Stream& stream) override;
  void reduce_scatter(View in, std::span<const int64_t> counts, Buffer out, Reduce reduce,
                      Stream& stream) override;
  void all_gather(View in, std::span<const int64_t> counts, Buffer out, Stream& stream) override;
  void all_to_all(View in, std::span<const int64_t> in_counts, Buffer out,
                  std::span<const int64_t> out_counts, Stream& stream) override;
  void broadcast(Buffer inout, int root, Stream& stream) override;
  void exchange(std::span<const Transfer> transfers, Stream& stream) override;
  std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(std::string_view reason) noexcept override { inner_->abort(reason); }

 protected:
  Communicator& inner() { return *inner_; }
  // The call's spans are valid only inside these two; both may enqueue work on the stream.
  virtual void before(const Call& call, Stream& stream) = 0;
  virtual void after(const Call& call, Stream& stream) = 0;
  virtual void before_split() {}
  virtual std::unique_ptr<Communicator> wrap(std::unique_ptr<Communicator> child) = 0;

 private:
  std::unique_ptr<Communicator> owned_;
  Communicator* inner_;
};

}  // namespace shoestring

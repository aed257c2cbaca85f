#pragma once
// Communication between ranks behind one small interface. Back ends: comm/in_process (threads as
// ranks, the reference) and comm/mpi; decorators around any of them: comm/{checked, counting,
// traced, throttled}.
//
// Every call enqueues on a stream and returns; the result is there when an event recorded after the
// call has happened. Until then the caller keeps the memory alive and does not touch it. Errors
// surface where streams report errors: Event::wait(), Stream::synchronize() or the next call.
// All ranks of a communicator make the same calls in the same order (`exchange` and `all_to_all`
// need only the two ends of each message to agree). One communicator runs one call at a time: use
// it on one stream, or order its streams by events. A communicator outlives the work on its stream.
//
// Sums are folds in rank order, ((x0 + x1) + x2) + ..., element by element, whatever the sizes, the
// algorithm and the back end, so equal inputs give equal bits everywhere. f64 is summed in f64,
// bf16, f16 and the 8-bit floats in f32 with one rounding at the end, integers modulo 2^bits.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/device.h"
#include "core/dtype.h"

namespace shoestring {

// max and min of floats are NaN where any rank has a NaN.
enum class Reduce : uint8_t { sum, max, min };
std::string_view name_of(Reduce reduce);

// Contiguous elements in the memory of the stream's device.
struct View {
  const std::byte* data = nullptr;
  int64_t count = 0;  // elements
  Dtype dtype = Dtype::u8;
  size_t bytes() const { return static_cast<size_t>(count) * size_of(dtype); }
  View part(int64_t begin, int64_t elements) const {
    return {data + static_cast<size_t>(begin) * size_of(dtype), elements, dtype};
  }
};
struct Buffer {
  std::byte* data = nullptr;
  int64_t count = 0;
  Dtype dtype = Dtype::u8;
  size_t bytes() const { return static_cast<size_t>(count) * size_of(dtype); }
  Buffer part(int64_t begin, int64_t elements) const {
    return {data + static_cast<size_t>(begin) * size_of(dtype), elements, dtype};
  }
  operator View() const { return {data, count, dtype}; }
};
template <class T, size_t kExtent>
View view_of(std::span<T, kExtent> x) {
  using Plain = std::remove_const_t<T>;
  return {reinterpret_cast<const std::byte*>(x.data()), static_cast<int64_t>(x.size()),
          dtype_of<Plain>};
}
template <class T, size_t kExtent>
Buffer buffer_of(std::span<T, kExtent> x) {
  return {reinterpret_cast<std::byte*>(x.data()), static_cast<int64_t>(x.size()), dtype_of<T>};
}

// One message of `exchange`. Messages between the same two ranks arrive in the order of the list.
struct Transfer {
  enum class Kind : uint8_t { send, receive } kind = Kind::send;
  int peer = 0;
  View out;   // of a send
  Buffer in;  // of a receive
  static Transfer send(int peer, View out) { return {Kind::send, peer, out, {}}; }
  static Transfer receive(int peer, Buffer in) { return {Kind::receive, peer, {}, in}; }
};

// How `count` elements are shared out: ranges of ceil(blocks / ranks) blocks of `granule` elements,
// the last ones shorter or empty. The result has one count a rank.
std::vector<int64_t> even_counts(int64_t count, int ranks, int64_t granule = 1);

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& name() const = 0;  // for messages: "world", "world/1"

  virtual void all_reduce(Buffer inout, Reduce reduce, Stream& stream) = 0;
  // `in` holds one piece a rank, `counts[r]` elements for rank r, in rank order; `out` gets this
  // rank's piece, reduced. `out` may be that piece of `in`.
  virtual void reduce_scatter(View in, std::span<const int64_t> counts, Buffer out, Reduce reduce,
                              Stream& stream) = 0;
  // `out` gets the `counts[r]` elements of every rank r, in rank order; `in` may be its piece.
  virtual void all_gather(View in, std::span<const int64_t> counts, Buffer out, Stream& stream) = 0;
  // Pieces lie one after the other, in rank order, in both buffers, which do not overlap.
  virtual void all_to_all(View in, std::span<const int64_t> in_counts, Buffer out,
                          std::span<const int64_t> out_counts, Stream& stream) = 0;
  virtual void broadcast(Buffer inout, int root, Stream& stream) = 0;
  // Starts all messages at once and ends when all have arrived: no order can deadlock.
  virtual void exchange(std::span<const Transfer> transfers, Stream& stream) = 0;

  // Communicators of the ranks with equal colours, ranked by (key, rank here). Blocks; no work of
  // this communicator may be in flight. A negative colour takes part and gets a null pointer.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;
  // Ends every present and future wait of this rank, and of its peers, with an error that names
  // this rank and the reason. From any thread, any number of times.
  virtual void abort(std::string_view reason) noexcept = 0;
};

// Thrown to ranks that wait for one that failed, so that the cause can be told from its
// consequences.
class PeerFailure : public Error {
 public:
  explicit PeerFailure(std::string message,
                       std::source_location where = std::source_location::current())
      : Error(std::move(message), ExitCode::fault, where) {}
};

// No rank passes before all have come. Enqueued like every call.
void barrier(Communicator& communicator, Stream& stream);

// Declared after a stream whose worker communicates: when an exception unwinds the frame, peers are
// told before the stream's destructor waits for work that they would never answer.
class AbortOnUnwind {
 public:
  explicit AbortOnUnwind(Communicator& communicator) : communicator_(communicator) {}
  AbortOnUnwind(const AbortOnUnwind&) = delete;
  AbortOnUnwind& operator=(const AbortOnUnwind&) = delete;
  ~AbortOnUnwind() {
    if (std::uncaught_exceptions() > before_) communicator_.abort("it left by an exception");
  }

 private:
  Communicator& communicator_;
  int before_ = std::uncaught_exceptions();
};

}  // namespace shoestring

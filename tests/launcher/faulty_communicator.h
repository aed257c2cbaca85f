#pragma once
// A world in which one kind of call of one group goes wrong: planted faults, as bugs of layouts
// are.

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/communicator.h"

namespace shoestring {

// The n-th communicator that is split off the world (0 first), or all of them.
struct PlantedFault {
  int split = -1;
  enum class What : uint8_t {
    no_sum,        // an all_reduce leaves everybody's own
    twice,         // an all_reduce counts everything twice
    mean,          // an all_reduce or reduce_scatter divides by the ranks
    own_piece,     // a reduce_scatter gives this rank's own part of its piece
    stale,         // an all_gather gives the first rank's piece to all places
    swapped,       // an all_to_all's pieces arrive in another order
    silent_sends,  // an exchange delivers zeros
  } what = What::no_sum;
};

class FaultyCommunicator : public Communicator {
 public:
  FaultyCommunicator(Communicator& inner, PlantedFault fault, bool here)
      : inner_(inner), fault_(fault), here_(here) {}
  FaultyCommunicator(std::unique_ptr<Communicator> inner, PlantedFault fault, bool here)
      : owned_(std::move(inner)), inner_(*owned_), fault_(fault), here_(here) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& name() const override { return inner_.name(); }

  void all_reduce(Buffer x, Reduce reduce, Stream& stream) override {
    const bool sums = x.dtype == Dtype::f32 && reduce == Reduce::sum;
    if (is(PlantedFault::What::no_sum) && sums) return;
    inner_.all_reduce(x, reduce, stream);
    if (!sums) return;
    if (is(PlantedFault::What::twice)) scale(x, 2, stream);
    if (is(PlantedFault::What::mean)) scale(x, 1.0f / static_cast<float>(size()), stream);
  }
  void reduce_scatter(View in, std::span<const int64_t> counts, Buffer out, Reduce reduce,
                      Stream& stream) override {
    if (is(PlantedFault::What::own_piece)) {
      int64_t begin = 0;
      for (int r = 0; r < rank(); ++r) begin += counts[static_cast<size_t>(r)];
      const View own = in.part(begin, out.count);
      stream.run([own, out] { std::memmove(out.data, own.data, out.bytes()); });
      return;
    }
    inner_.reduce_scatter(in, counts, out, reduce, stream);
    const bool f32 = out.dtype == Dtype::f32;
    if (is(PlantedFault::What::mean) && f32) {
      scale(out, 1.0f / static_cast<float>(size()), stream);
    }
  }
  void all_gather(View in, std::span<const int64_t> counts, Buffer out, Stream& stream) override {
    inner_.all_gather(in, counts, out, stream);
    const bool floats = out.dtype == Dtype::f32 || out.dtype == Dtype::f64;
    if (!is(PlantedFault::What::stale) || !floats) return;
    const std::vector<int64_t> sizes(counts.begin(), counts.end());
    stream.run([sizes, out] {
      int64_t at = sizes[0];
      for (size_t r = 1; r < sizes.size(); ++r) {
        if (sizes[r] == sizes[0]) {
          std::memcpy(out.part(at, sizes[r]).data, out.data, out.part(0, sizes[0]).bytes());
        }
        at += sizes[r];
      }
    });
  }
  void all_to_all(View in, std::span<const int64_t> in_counts, Buffer out,
                  std::span<const int64_t> out_counts, Stream& stream) override {
    inner_.all_to_all(in, in_counts, out, out_counts, stream);
    if (!is(PlantedFault::What::swapped) || out.dtype != Dtype::f32) return;
    stream.run([out] {  // the first value takes the last one's place
      auto* x = reinterpret_cast<float*>(out.data);
      for (int64_t i = 0, j = out.count - 1; i < j; ++i, --j) std::swap(x[i], x[j]);
    });
  }
  void broadcast(Buffer x, int root, Stream& stream) override { inner_.broadcast(x, root, stream); }
  void exchange(std::span<const Transfer> transfers, Stream& stream) override {
    inner_.exchange(transfers, stream);
    if (!is(PlantedFault::What::silent_sends)) return;
    for (const Transfer& t : transfers) {
      if (t.kind != Transfer::Kind::receive || t.in.dtype != Dtype::f32) continue;
      stream.run([in = t.in] { std::memset(in.data, 0, in.bytes()); });
    }
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    auto part = inner_.split(color, key);
    const int number = splits_++;
    if (!part) return nullptr;
    const bool here = here_ || number == fault_.split || fault_.split < 0;
    return std::make_unique<FaultyCommunicator>(std::move(part), fault_, here);
  }
  void abort(std::string_view reason) noexcept override { inner_.abort(reason); }

 private:
  bool is(PlantedFault::What what) const { return here_ && fault_.what == what; }
  static void scale(Buffer x, float by, Stream& stream) {
    stream.run([x, by] {
      auto* values = reinterpret_cast<float*>(x.data);
      for (int64_t i = 0; i < x.count; ++i) values[i] *= by;
    });
  }

  std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
  PlantedFault fault_;
  bool here_;
  int splits_ = 0;
};

}  // namespace shoestring

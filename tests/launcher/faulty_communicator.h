#pragma once
// A world in which one kind of call of one group goes wrong: planted faults, as bugs of layouts
// are.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "parallel/communicator.h"

namespace shoestring {

struct PlantedFault {
  // The communicators of that name (SplitName), whatever their color, and all that are split off
  // them; `alone`: without. Empty: the world.
  std::string_view where = {};
  enum class What : uint8_t {
    no_sum,      // an all_reduce leaves everybody's own
    twice,       // a sum counts everything twice
    mean,        // a sum is divided by the ranks, what arrives in an exchange too
    own_piece,   // a reduce_scatter gives this rank's own part of its piece
    stale,       // an all_gather gives the first rank's piece to all places
    wider,       // of an all_gather's records of four the first value is ln(ranks) more
    rotated,     // an all_gather's pieces stand one place further
    swapped,     // an all_to_all's pieces arrive in another order
    only_first,  // all_to_alls after the first deliver zeros
    own_alone,   // all_to_alls after the first `sound` deliver zeros in place of others' pieces
    shorter,     // an all_reduce is of one element less
    silent,      // an exchange delivers zeros
    sent_twice,  // every sum and every gather is made twice; the numbers are right
    leak,        // every sum and every gather leaves a buffer behind
  } what = What::no_sum;
  bool alone = false;
  int64_t elements = 0;  // only calls that leave so many here
  Dtype dtype = Dtype::f32;
  int below = 0;  // only on ranks below this one; 0: on all
  int sound = 0;
};

class FaultyCommunicator : public Communicator {
 public:
  using What = PlantedFault::What;

  FaultyCommunicator(Communicator& inner, PlantedFault fault)
      : inner_(inner), fault_(fault), meant_(fault.where.empty()) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& name() const override { return inner_.name(); }

  void all_reduce(Buffer x, Reduce reduce, Stream& stream) override {
    const bool here = reduce == Reduce::sum && meant(x);
    if (here && fault_.what == What::no_sum) return;
    if (here && fault_.what == What::shorter) {
      return inner_.all_reduce(x.part(0, x.count - 1), reduce, stream);
    }
    if (here && fault_.what == What::sent_twice) {
      const Buffer copy = scratch(x, stream);
      stream.run([copy, x] { std::memcpy(copy.data, x.data, x.bytes()); });
      inner_.all_reduce(copy, reduce, stream);
    }
    inner_.all_reduce(x, reduce, stream);
    if (here) spoil_sum(x, stream);
  }
  void reduce_scatter(View in, std::span<const int64_t> counts, Buffer out, Reduce reduce,
                      Stream& stream) override {
    const bool here = meant(out);
    if (here && fault_.what == What::own_piece) {
      int64_t begin = 0;
      for (int r = 0; r < rank(); ++r) begin += counts[static_cast<size_t>(r)];
      const View own = in.part(begin, out.count);
      stream.run([own, out] { std::memmove(out.data, own.data, out.bytes()); });
      return;
    }
    if (here && fault_.what == What::sent_twice) {
      inner_.reduce_scatter(in, counts, scratch(out, stream), reduce, stream);
    }
    inner_.reduce_scatter(in, counts, out, reduce, stream);
    if (here) spoil_sum(out, stream);
  }
  void all_gather(View in, std::span<const int64_t> counts, Buffer out, Stream& stream) override {
    const bool here = meant(out);
    if (here && fault_.what == What::sent_twice) {
      inner_.all_gather(in, counts, scratch(out, stream), stream);
    }
    inner_.all_gather(in, counts, out, stream);
    if (here && fault_.what == What::leak) scratch(out, stream);
    if (!here) return;
    if (fault_.what == What::stale) {
      std::vector<size_t> sizes;
      for (const int64_t count : counts) sizes.push_back(out.part(0, count).bytes());
      stream.run([out, sizes] {
        size_t at = sizes[0];
        for (size_t r = 1; r < sizes.size(); at += sizes[r++]) {
          std::memcpy(out.data + at, out.data, std::min(sizes[0], sizes[r]));
        }
      });
    }
    if (fault_.what == What::rotated) {
      const size_t piece = out.part(0, counts[0]).bytes();
      stream.run([out, piece] {
        std::rotate(out.data, out.data + out.bytes() - piece, out.data + out.bytes());
      });
    }
    if (fault_.what == What::wider) {
      stream.run([out, more = std::log(size())] {
        auto* x = reinterpret_cast<double*>(out.data);
        for (int64_t i = 0; i < out.count; i += 4) x[i] += more;
      });
    }
  }
  void all_to_all(View in, std::span<const int64_t> in_counts, Buffer out,
                  std::span<const int64_t> out_counts, Stream& stream) override {
    inner_.all_to_all(in, in_counts, out, out_counts, stream);
    if (!meant(out)) return;
    if (fault_.what == What::swapped) {
      stream.run([out] {  // the first value takes the last one's place
        auto* x = reinterpret_cast<float*>(out.data);
        std::reverse(x, x + out.count);
      });
    }
    if (fault_.what == What::only_first && all_to_alls_++ > 0) zero(out, stream);
    if (fault_.what == What::own_alone && all_to_alls_++ >= fault_.sound) {
      int64_t begin = 0;
      for (int r = 0; r < size(); begin += out_counts[static_cast<size_t>(r++)]) {
        if (r != rank()) zero(out.part(begin, out_counts[static_cast<size_t>(r)]), stream);
      }
    }
  }
  void broadcast(Buffer x, int root, Stream& stream) override { inner_.broadcast(x, root, stream); }
  void exchange(std::span<const Transfer> transfers, Stream& stream) override {
    inner_.exchange(transfers, stream);
    for (const Transfer& t : transfers) {
      if (t.kind != Transfer::Kind::receive || !meant(t.in)) continue;
      if (fault_.what == What::silent) zero(t.in, stream);
      if (fault_.what == What::mean) scale(t.in, 1.0 / size(), stream);
    }
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    auto part = inner_.split(color, key);
    if (!part) return nullptr;
    auto child = std::make_unique<FaultyCommunicator>(*part, fault_);
    const std::string_view name = part->name();
    child->meant_ = fault_.where.empty() ? !fault_.alone
                                         : name.substr(0, name.rfind('/')) == fault_.where ||
                                               (meant_ && !fault_.alone);
    child->owned_ = std::move(part);
    return child;
  }
  void abort(std::string_view reason) noexcept override { inner_.abort(reason); }

 private:
  bool meant(Buffer x) const {
    return meant_ && x.dtype == fault_.dtype && (fault_.below == 0 || rank() < fault_.below) &&
           (fault_.elements == 0 || x.count == fault_.elements);
  }
  void spoil_sum(Buffer x, Stream& stream) {
    if (fault_.what == What::twice) scale(x, 2, stream);
    if (fault_.what == What::mean) scale(x, 1.0 / size(), stream);
    if (fault_.what == What::leak) scratch(x, stream);
  }
  // As large as x; lives as long as this.
  Buffer scratch(Buffer x, Stream& stream) {
    kept_.push_back(stream.device().allocate(x.bytes(), MemoryKind::communication));
    return {kept_.back()->data(), x.count, x.dtype};
  }
  static void zero(Buffer x, Stream& stream) {
    stream.run([x] { std::memset(x.data, 0, x.bytes()); });
  }
  static void scale(Buffer x, double by, Stream& stream) {
    stream.run([x, by] {
      for (int64_t i = 0; i < x.count; ++i) {
        if (x.dtype == Dtype::f64) {
          reinterpret_cast<double*>(x.data)[i] *= by;
        } else {
          reinterpret_cast<float*>(x.data)[i] *= static_cast<float>(by);
        }
      }
    });
  }

  std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
  PlantedFault fault_;
  bool meant_;  // here
  int all_to_alls_ = 0;
  std::vector<BlockPtr> kept_;
};

}  // namespace shoestring

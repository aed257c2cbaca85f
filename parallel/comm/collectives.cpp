#include "parallel/comm/collectives.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>

#include "core/text.h"
#include "parallel/comm/fold.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

constexpr size_t small_broadcast_bytes = 65536;

thread_local std::string split_name;

using Counts = std::vector<int64_t>;

Counts counts_of(std::span<const int64_t> counts) { return {counts.begin(), counts.end()}; }

int64_t sum_before(std::span<const int64_t> counts, int rank) {
  return std::accumulate(counts.begin(), counts.begin() + rank, int64_t{0});
}

// Copies of a rank to itself; in place they are none.
void copy_local(View from, Buffer to) {
  if (to.bytes() > 0 && to.data != from.data) std::memmove(to.data, from.data, to.bytes());
}

class TransportCommunicator : public Communicator {
 public:
  explicit TransportCommunicator(std::unique_ptr<Transport> transport)
      : transport_(std::move(transport)) {}

  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  const std::string& name() const override { return transport_->name(); }

  void all_reduce(Buffer inout, Reduce reduce, Stream& stream) override {
    run("all_reduce", stream, [this, inout, reduce, &device = stream.device()](CallName call) {
      if (size() == 1) return;
      const Counts counts = even_counts(inout.count, size());
      const Buffer mine = own_piece(inout, counts);
      scatter_and_fold({inout, counts, mine, reduce}, device, call);
      gather(mine, counts, inout, call);
    });
  }

  void reduce_scatter(View in, std::span<const int64_t> counts, Buffer out, Reduce reduce,
                      Stream& stream) override {
    check_counts("reduce_scatter", counts, in);
    check_piece("reduce_scatter", counts, out, in.dtype);
    run("reduce_scatter", stream,
        [this, in, counts = counts_of(counts), out, reduce,
         &device = stream.device()](CallName call) {
          scatter_and_fold({in, counts, out, reduce}, device, call);
        });
  }

  void all_gather(View in, std::span<const int64_t> counts, Buffer out, Stream& stream) override {
    check_counts("all_gather", counts, out);
    check_piece("all_gather", counts, in, out.dtype);
    run("all_gather", stream, [this, in, counts = counts_of(counts), out](CallName call) {
      gather(in, counts, out, call);
    });
  }

  void all_to_all(View in, std::span<const int64_t> in_counts, Buffer out,
                  std::span<const int64_t> out_counts, Stream& stream) override {
    check_counts("all_to_all", in_counts, in);
    check_counts("all_to_all", out_counts, out);
    const auto self = static_cast<size_t>(rank());
    if (in.dtype != out.dtype || in_counts[self] != out_counts[self]) {
      fail(cat("[all_to_all] rank ", rank(), " sends itself ", in_counts[self], " x ",
               name_of(in.dtype), " but expects ", out_counts[self], " x ", name_of(out.dtype)));
    }
    run("all_to_all", stream,
        [this, in, sent = counts_of(in_counts), out,
         received = counts_of(out_counts)](CallName call) {
          swap_pieces({in, sent, out, received}, call);
        });
  }

  void broadcast(Buffer inout, int root, Stream& stream) override {
    check_peer("broadcast", root);
    run("broadcast", stream,
        [this, inout, root](CallName call) { broadcast_now(inout, root, call); });
  }

  void exchange(std::span<const Transfer> transfers, Stream& stream) override {
    for (const Transfer& t : transfers) check_peer("exchange", t.peer);
    std::vector<Transfer> list(transfers.begin(), transfers.end());
    run("exchange", stream, [this, list = std::move(list)](CallName call) {
      std::vector<Outgoing> sends;
      std::vector<Incoming> receives;
      for (const Transfer& t : list) {
        if (t.kind == Transfer::Kind::send) {
          sends.push_back({t.peer, t.out.data, t.out.bytes()});
        } else {
          receives.push_back({t.peer, t.in.data, t.in.bytes()});
        }
      }
      transport_->transfer(sends, receives, call);
    });
  }

  std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(std::string_view reason) noexcept override { transport_->abort(reason); }

 private:
  struct Scatter {
    View in;
    const Counts& counts;
    Buffer out;
    Reduce reduce;
  };
  struct Swap {
    View in;
    const Counts& in_counts;
    Buffer out;
    const Counts& out_counts;
  };

  // Marks the communicator as busy for one call: two at once would mix their messages.
  class Running {
   public:
    explicit Running(TransportCommunicator& c) : flag_(c.running_) {
      if (flag_.exchange(true)) {
        fail(cat("two calls run at once on communicator '", c.name(), "' of rank ", c.rank(),
                 "; use one stream, or split() one for each"));
      }
    }
    ~Running() { flag_.store(false); }

   private:
    std::atomic<bool>& flag_;
  };

  // A call that is not made, since work before it in its stream threw, would leave its peers
  // waiting, and its own rank perhaps for these in another stream.
  class TellDropped {
   public:
    explicit TellDropped(Communicator& c) : communicator_(c) {}
    TellDropped(const TellDropped&) = delete;
    TellDropped& operator=(const TellDropped&) = delete;
    ~TellDropped() {
      if (!made_ && std::current_exception()) communicator_.abort(text_of_current_error());
    }
    void made() { made_ = true; }

   private:
    Communicator& communicator_;
    bool made_ = false;
  };

  template <class F>
  void run(std::string_view op, Stream& stream, F work) {
    // Not all ranks take part in an exchange, so it has a count of its own.
    const CallName call{op, op == "exchange" ? exchanges_++ : sequence_++};
    stream.run([this, call, work = std::move(work), told = std::make_shared<TellDropped>(*this)] {
      told->made();
      Running running(*this);
      work(call);
    });
  }

  Buffer own_piece(Buffer whole, const Counts& counts) const {
    return whole.part(sum_before(counts, rank()), counts[static_cast<size_t>(rank())]);
  }

  void check_counts(std::string_view op, std::span<const int64_t> counts, View whole) const;
  void check_piece(std::string_view op, std::span<const int64_t> counts, View piece,
                   Dtype dtype) const;
  void check_peer(std::string_view op, int peer) const;
  void scatter_and_fold(const Scatter& s, Device& device, CallName call);
  void gather(View in, const Counts& counts, Buffer out, CallName call);
  void swap_pieces(const Swap& s, CallName call);
  void broadcast_now(Buffer inout, int root, CallName call);

  std::unique_ptr<Transport> transport_;
  std::atomic<int64_t> sequence_{0}, exchanges_{0};
  std::atomic<bool> running_{false};
};

void TransportCommunicator::check_counts(std::string_view op, std::span<const int64_t> counts,
                                         View whole) const {
  const bool negative = std::any_of(counts.begin(), counts.end(), [](int64_t c) { return c < 0; });
  const int64_t sum = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  if (static_cast<int>(counts.size()) != size() || negative || sum != whole.count) {
    fail(cat("[", op, "] on '", name(), "' of ", size(), " ranks: ", counts.size(),
             " counts that sum to ", sum, negative ? ", some negative," : "", " for ", whole.count,
             " elements"));
  }
}

void TransportCommunicator::check_piece(std::string_view op, std::span<const int64_t> counts,
                                        View piece, Dtype dtype) const {
  const int64_t wanted = counts[static_cast<size_t>(rank())];
  if (piece.count != wanted || piece.dtype != dtype) {
    fail(cat("[", op, "] the piece of rank ", rank(), " must be ", wanted, " x ", name_of(dtype),
             " but is ", piece.count, " x ", name_of(piece.dtype)));
  }
}

void TransportCommunicator::check_peer(std::string_view op, int peer) const {
  if (peer < 0 || peer >= size()) {
    fail(cat("[", op, "] '", name(), "' has ranks 0 to ", size() - 1, ", not ", peer));
  }
}

void TransportCommunicator::scatter_and_fold(const Scatter& s, Device& device, CallName call) {
  const size_t piece = s.out.bytes();
  const auto others = static_cast<size_t>(size() - 1);
  const BlockPtr staging = device.allocate(piece * others, MemoryKind::communication);
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  std::vector<View> inputs;
  int64_t at = 0;
  for (int peer = 0; peer < size(); ++peer) {
    const int64_t count = s.counts[static_cast<size_t>(peer)];
    const View part = s.in.part(at, count);
    at += count;
    if (peer == rank()) {
      inputs.push_back(part);
      continue;
    }
    sends.push_back({peer, part.data, part.bytes()});
    std::byte* const to = staging->data() + piece * receives.size();
    receives.push_back({peer, to, piece});
    inputs.push_back({to, s.out.count, s.out.dtype});
  }
  transport_->transfer(sends, receives, call);
  fold(inputs, s.out, s.reduce);
}

void TransportCommunicator::gather(View in, const Counts& counts, Buffer out, CallName call) {
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  int64_t at = 0;
  for (int peer = 0; peer < size(); ++peer) {
    const Buffer part = out.part(at, counts[static_cast<size_t>(peer)]);
    at += part.count;
    if (peer == rank()) {
      copy_local(in, part);
    } else {
      sends.push_back({peer, in.data, in.bytes()});
      receives.push_back({peer, part.data, part.bytes()});
    }
  }
  transport_->transfer(sends, receives, call);
}

void TransportCommunicator::swap_pieces(const Swap& s, CallName call) {
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  int64_t from = 0, to = 0;
  for (int peer = 0; peer < size(); ++peer) {
    const View out = s.in.part(from, s.in_counts[static_cast<size_t>(peer)]);
    const Buffer in = s.out.part(to, s.out_counts[static_cast<size_t>(peer)]);
    from += out.count;
    to += in.count;
    if (peer == rank()) {
      copy_local(out, in);
    } else {
      sends.push_back({peer, out.data, out.bytes()});
      receives.push_back({peer, in.data, in.bytes()});
    }
  }
  transport_->transfer(sends, receives, call);
}

void TransportCommunicator::broadcast_now(Buffer inout, int root, CallName call) {
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  const bool small = inout.bytes() <= small_broadcast_bytes;
  const Counts counts = even_counts(inout.count, size());
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == root) continue;
    const Buffer part =
        small ? inout : inout.part(sum_before(counts, peer), counts[static_cast<size_t>(peer)]);
    if (rank() == root) sends.push_back({peer, part.data, part.bytes()});
    if (rank() == peer) receives.push_back({root, part.data, part.bytes()});
  }
  transport_->transfer(sends, receives, call);
  if (!small) gather(own_piece(inout, counts), counts, inout, call);
}

std::unique_ptr<Communicator> TransportCommunicator::split(int color, int key) {
  Running running(*this);
  const CallName call{"split", sequence_++};
  const std::array<int64_t, 2> mine{color, key};
  std::vector<int64_t> all(static_cast<size_t>(size()) * 2);
  const Counts counts(static_cast<size_t>(size()), 2);
  gather(view_of(std::span(mine)), counts, buffer_of(std::span(all)), call);
  std::vector<int> members;
  for (int r = 0; r < size(); ++r) {
    if (color >= 0 && all[static_cast<size_t>(r) * 2] == color) members.push_back(r);
  }
  std::stable_sort(members.begin(), members.end(), [&](int a, int b) {
    return all[static_cast<size_t>(a) * 2 + 1] < all[static_cast<size_t>(b) * 2 + 1];
  });
  auto transport =
      transport_->child({.members = members,
                         .color = color,
                         .id = call.sequence,
                         .name = cat(split_name.empty() ? name() : split_name, "/", color)});
  if (transport == nullptr) return nullptr;
  return make_communicator(std::move(transport));
}

}  // namespace

std::string_view name_of(Call::Op op) {
  static constexpr std::array<std::string_view, num_call_ops> names{
      "all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "exchange"};
  return names.at(static_cast<size_t>(op));
}

SplitName::SplitName(std::string_view name) { split_name = name; }
SplitName::~SplitName() { split_name = {}; }

namespace {

int64_t exchange_bytes(const Call& call, Transfer::Kind kind, int rank) {
  int64_t sum = 0;
  for (const Transfer& t : call.transfers) {
    if (t.kind != kind || t.peer == rank) continue;
    sum += static_cast<int64_t>(kind == Transfer::Kind::send ? t.out.bytes() : t.in.bytes());
  }
  return sum;
}

}  // namespace

int64_t bytes_sent(const Call& call, int rank, int size) {
  const auto self = static_cast<size_t>(rank);
  const auto width = static_cast<int64_t>(size_of(call.in.dtype));
  const int64_t others = size - 1, count = call.in.count;
  const int64_t own = even_counts(count, size)[self];
  switch (call.op) {
    case Call::Op::all_reduce:
      return (count - own + own * others) * width;
    case Call::Op::reduce_scatter:
    case Call::Op::all_to_all:
      return (count - call.in_counts[self]) * width;
    case Call::Op::all_gather:
      return count * others * width;
    case Call::Op::broadcast:
      if (call.in.bytes() <= small_broadcast_bytes) {
        return rank == call.root ? count * others * width : 0;
      }
      return (own * others + (rank == call.root ? count - own : 0)) * width;
    case Call::Op::exchange:
      return exchange_bytes(call, Transfer::Kind::send, rank);
  }
  fail("a call that does not exist");
}

int64_t bytes_received(const Call& call, int rank, int size) {
  const auto self = static_cast<size_t>(rank);
  const auto width = static_cast<int64_t>(size_of(call.in.dtype));
  const int64_t count = call.out.count;
  switch (call.op) {
    case Call::Op::all_reduce: {
      const int64_t own = even_counts(count, size)[self];
      return (own * (size - 1) + count - own) * width;
    }
    case Call::Op::reduce_scatter:
      return count * (size - 1) * width;
    case Call::Op::all_to_all:
      return (count - call.out_counts[self]) * width;
    case Call::Op::all_gather:
      return (count - call.in.count) * width;
    case Call::Op::broadcast: {
      const bool small = call.in.bytes() <= small_broadcast_bytes;
      const int64_t kept = rank != call.root ? 0 : small ? count : even_counts(count, size)[self];
      return (count - kept) * width;
    }
    case Call::Op::exchange:
      return exchange_bytes(call, Transfer::Kind::receive, rank);
  }
  fail("a call that does not exist");
}

std::unique_ptr<Communicator> make_communicator(std::unique_ptr<Transport> transport) {
  return std::make_unique<TransportCommunicator>(std::move(transport));
}

}  // namespace shoestring

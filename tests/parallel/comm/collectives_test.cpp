#include "parallel/comm/collectives.h"

#include <gtest/gtest.h>

#include <array>

#include "core/text.h"

namespace shoestring {
namespace {

// One rank's end of a world whose other ranks do not answer: it only adds up what it is given.
class Scale : public Transport {
 public:
  Scale(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& name() const override { return name_; }
  void transfer(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                CallName) override {
    for (const auto& s : sends) sent += s.peer == rank_ ? 0 : static_cast<int64_t>(s.bytes);
    for (const auto& r : receives) received += r.peer == rank_ ? 0 : static_cast<int64_t>(r.bytes);
  }
  std::unique_ptr<Transport> child(const Child&) override { return nullptr; }
  void abort(std::string_view) noexcept override {}

  int64_t sent = 0, received = 0;

 private:
  int rank_, size_;
  std::string name_ = "scale";
};

struct Weighed {
  Device device{DeviceKind::cpu, 0, 1};
  Stream stream = Stream::immediate(device);
  Scale* scale;
  std::unique_ptr<Communicator> communicator;

  Weighed(int rank, int size) {
    auto transport = std::make_unique<Scale>(rank, size);
    scale = transport.get();
    communicator = make_communicator(std::move(transport));
  }
  // The formulas agree with what the transport was given.
  void expect(const Call& call) {
    const int rank = communicator->rank(), size = communicator->size();
    EXPECT_EQ(bytes_sent(call, rank, size), scale->sent) << name_of(call.op) << " " << rank;
    EXPECT_EQ(bytes_received(call, rank, size), scale->received) << name_of(call.op) << " " << rank;
    scale->sent = scale->received = 0;
  }
};

Call call_of(Call::Op op, View in, Buffer out) {
  Call call;
  call.op = op;
  call.in = in;
  call.out = out;
  return call;
}

void weigh_all(int rank, int size, int64_t count) {
  Weighed w(rank, size);
  Communicator& c = *w.communicator;
  const auto n = static_cast<size_t>(size);
  std::vector<float> x(static_cast<size_t>(count));
  std::vector<float> y(x.size() * 2);
  const Buffer whole = buffer_of(std::span(x));
  const std::vector<int64_t> counts = even_counts(count, size);
  const Buffer piece = buffer_of(std::span(y)).part(0, counts[static_cast<size_t>(rank)]);

  c.all_reduce(whole, Reduce::sum, w.stream);
  w.expect(call_of(Call::Op::all_reduce, whole, whole));
  c.broadcast(whole, size - 1, w.stream);
  Call call = call_of(Call::Op::broadcast, whole, whole);
  call.root = size - 1;
  w.expect(call);

  c.reduce_scatter(whole, counts, piece, Reduce::sum, w.stream);
  call = call_of(Call::Op::reduce_scatter, whole, piece);
  call.in_counts = counts;
  w.expect(call);
  c.all_gather(piece, counts, whole, w.stream);
  call = call_of(Call::Op::all_gather, piece, whole);
  call.out_counts = counts;
  w.expect(call);

  std::vector<int64_t> received(n, 3);
  received[static_cast<size_t>(rank)] = counts[static_cast<size_t>(rank)];
  int64_t sum = 0;
  for (int64_t r : received) sum += r;
  std::vector<float> z(static_cast<size_t>(sum));
  c.all_to_all(whole, counts, buffer_of(std::span(z)), received, w.stream);
  call = call_of(Call::Op::all_to_all, whole, buffer_of(std::span(z)));
  call.in_counts = counts;
  call.out_counts = received;
  w.expect(call);

  const std::array<Transfer, 3> list{Transfer::send(0, whole), Transfer::send(size - 1, piece),
                                     Transfer::receive(0, whole)};
  c.exchange(list, w.stream);
  call = call_of(Call::Op::exchange, {}, {});
  call.transfers = list;
  w.expect(call);
}

TEST(Collectives, ByteFormulasAreWhatTheTransportIsGiven) {
  for (int size = 1; size <= 4; ++size) {
    for (int rank = 0; rank < size; ++rank) {
      for (int64_t count : {0, 1, 7, 1000, 50001}) weigh_all(rank, size, count);
    }
  }
}

TEST(Collectives, AllReduceSendsTwiceItsBytesLessAShare) {
  for (int size : {2, 4}) {
    Weighed w(0, size);
    std::vector<float> x(4000);
    w.communicator->all_reduce(buffer_of(std::span(x)), Reduce::sum, w.stream);
    EXPECT_EQ(w.scale->sent, 2 * 16000 * (size - 1) / size);
  }
}

TEST(Collectives, PiecesOfTheWrongKindAreErrors) {
  Weighed w(0, 2);
  std::vector<float> x(4);
  std::vector<double> d(2);
  const Buffer whole = buffer_of(std::span(x));
  const std::vector<int64_t> two{2, 2}, negative{-1, 5}, other{1, 3};
  Communicator& c = *w.communicator;
  const auto scatter = [&](std::span<const int64_t> counts, Buffer out) {
    c.reduce_scatter(whole, counts, out, Reduce::sum, w.stream);
  };
  EXPECT_THROW(scatter(two, whole), Error);
  EXPECT_THROW(scatter(two, buffer_of(std::span(d))), Error);
  EXPECT_THROW(scatter(negative, whole.part(0, 2)), Error);
  std::vector<float> y(4);
  EXPECT_THROW(c.all_to_all(whole, two, buffer_of(std::span(y)), other, w.stream), Error);
  scatter(two, whole.part(0, 2));
}

}  // namespace
}  // namespace shoestring

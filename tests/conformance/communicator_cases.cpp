#include "conformance/communicator_cases.h"

#include <limits>

#include "conformance/case_values.h"
#include "parallel/comm/checked.h"
#include "parallel/comm/counting.h"
#include "parallel/comm/throttled.h"
#include "parallel/comm/traced.h"
#include "parallel/data_parallel.h"

namespace shoestring {
namespace {

void case_all_reduce(Communicator& world) {
  Inline here;
  Random random(1);
  for_each_type([&]<class T>() {
    for (Reduce reduce : {Reduce::sum, Reduce::max, Reduce::min}) {
      const int64_t count = random_size(random);
      const uint64_t seed = random();
      auto x = values<T>(seed, world.rank(), count);
      world.all_reduce(buffer_of(std::span(x)), reduce, here.stream);
      expect_equal(x, reduced_values<T>(seed, world.size(), count, reduce), "all_reduce");
    }
  });
}

void case_sums_are_folds_in_rank_order(Communicator& world) {
  // Any other order or a wider accumulator gives other bits.
  const float parts[] = {1e8f, 3.0f, -1e8f, 3.0f, 1.5f, 2.5e7f};
  float wanted = 0;
  for (int r = 0; r < world.size(); ++r) {
    wanted = r == 0 ? parts[0] : wanted + parts[static_cast<size_t>(r) % std::size(parts)];
  }
  for (int64_t count : {1, 2, 7, 4096, 100003}) {
    Inline here;
    std::vector<float> x(static_cast<size_t>(count),
                         parts[static_cast<size_t>(world.rank()) % std::size(parts)]);
    world.all_reduce(buffer_of(std::span(x)), Reduce::sum, here.stream);
    expect_equal(x, std::vector<float>(x.size(), wanted), "a sum in rank order");
  }
}

void case_not_a_number(Communicator& world) {
  Inline here;
  for (Reduce reduce : {Reduce::sum, Reduce::max, Reduce::min}) {
    std::vector<float> x{1.0f, 2.0f};
    if (world.rank() == world.size() - 1) x[1] = std::numeric_limits<float>::quiet_NaN();
    world.all_reduce(buffer_of(std::span(x)), reduce, here.stream);
    check(x[0] == x[0] && x[1] != x[1], "a NaN of one rank is a NaN of the result");
  }
}

void case_reduce_scatter(Communicator& world) {
  Inline here;
  Random random(2);
  for_each_type([&]<class T>() {
    const Counts counts = random_counts(random, world.size());
    const uint64_t seed = random();
    auto in = values<T>(seed, world.rank(), sum_of(counts));
    const auto wanted = piece(reduced_values<T>(seed, world.size(), sum_of(counts), Reduce::sum),
                              counts, world.rank());
    std::vector<T> out(wanted.size());
    world.reduce_scatter(view_of(std::span(in)), counts, buffer_of(std::span(out)), Reduce::sum,
                         here.stream);
    expect_equal(out, wanted, "reduce_scatter");
    const Buffer own =
        buffer_of(std::span(in))
            .part(sum_before(counts, world.rank()), counts[static_cast<size_t>(world.rank())]);
    world.reduce_scatter(view_of(std::span(in)), counts, own, Reduce::sum, here.stream);
    expect_equal(piece(in, counts, world.rank()), wanted, "reduce_scatter in place");
  });
}

void case_all_gather(Communicator& world) {
  Inline here;
  Random random(3);
  for_each_type([&]<class T>() {
    const Counts counts = random_counts(random, world.size());
    const uint64_t seed = random();
    const auto wanted = values<T>(seed, 0, sum_of(counts));
    const auto mine = piece(wanted, counts, world.rank());
    std::vector<T> out(wanted.size());
    world.all_gather(view_of(std::span(mine)), counts, buffer_of(std::span(out)), here.stream);
    expect_equal(out, wanted, "all_gather");
    std::vector<T> place(wanted.size());
    std::copy(mine.begin(), mine.end(), place.begin() + sum_before(counts, world.rank()));
    const Buffer all = buffer_of(std::span(place));
    world.all_gather(all.part(sum_before(counts, world.rank()), static_cast<int64_t>(mine.size())),
                     counts, all, here.stream);
    expect_equal(place, wanted, "all_gather in place");
  });
}

void case_all_to_all(Communicator& world) {
  Inline here;
  Random random(4);
  for_each_type([&]<class T>() {
    std::vector<Counts> sent;  // sent[from][to]
    for (int r = 0; r < world.size(); ++r) sent.push_back(random_counts(random, world.size()));
    const uint64_t seed = random();
    const auto self = static_cast<size_t>(world.rank());
    Counts received;
    std::vector<T> wanted;
    for (int from = 0; from < world.size(); ++from) {
      const Counts& row = sent[static_cast<size_t>(from)];
      const auto part = piece(values<T>(seed, from, sum_of(row)), row, world.rank());
      wanted.insert(wanted.end(), part.begin(), part.end());
      received.push_back(row[self]);
    }
    const auto in = values<T>(seed, world.rank(), sum_of(sent[self]));
    std::vector<T> out(wanted.size());
    world.all_to_all(view_of(std::span(in)), sent[self], buffer_of(std::span(out)), received,
                     here.stream);
    expect_equal(out, wanted, "all_to_all");
  });
}

void case_broadcast(Communicator& world) {
  Inline here;
  Random random(5);
  for (int root = 0; root < world.size(); ++root) {
    for (int64_t count : {int64_t{0}, int64_t{1}, random_size(random), int64_t{40001}}) {
      const uint64_t seed = random();
      auto x = values<double>(seed, world.rank(), count);
      world.broadcast(buffer_of(std::span(x)), root, here.stream);
      expect_equal(x, values<double>(seed, root, count), "broadcast");
    }
  }
}

void case_exchange(Communicator& world) {
  Inline here;
  Random random(6);
  const int right = (world.rank() + 1) % world.size();
  const int left = (world.rank() + world.size() - 1) % world.size();
  for (int64_t count : {int64_t{0}, int64_t{5}, random_size(random), int64_t{300001}}) {
    // Two messages to the right and one to the left at once. With one rank all go to itself; with
    // two, left and right are the same peer and the order of the list tells the messages apart.
    const auto a = values<float>(10, world.rank(), count);
    const auto b = values<int16_t>(11, world.rank(), count / 2);
    const auto c = values<uint8_t>(12, world.rank(), count + 1);
    std::vector<float> got_a(a.size());
    std::vector<int16_t> got_b(b.size());
    std::vector<uint8_t> got_c(c.size());
    const Transfer list[] = {
        Transfer::send(right, view_of(std::span(a))),
        Transfer::send(right, view_of(std::span(b))),
        Transfer::send(left, view_of(std::span(c))),
        Transfer::receive(left, buffer_of(std::span(got_a))),
        Transfer::receive(left, buffer_of(std::span(got_b))),
        Transfer::receive(right, buffer_of(std::span(got_c))),
    };
    world.exchange(list, here.stream);
    expect_equal(got_a, values<float>(10, left, count), "first message of exchange");
    expect_equal(got_b, values<int16_t>(11, left, count / 2), "second message of exchange");
    expect_equal(got_c, values<uint8_t>(12, right, count + 1), "message to the left");
  }
}

void case_pairwise_exchange(Communicator& world) {
  // Only the ends of a message take part: a chain, as a pipeline sends it.
  Inline here;
  std::vector<int32_t> x{world.rank() == 0 ? 7 : 0};
  const Buffer all = buffer_of(std::span(x));
  if (world.rank() > 0) {
    const Transfer receive[] = {Transfer::receive(world.rank() - 1, all)};
    world.exchange(receive, here.stream);
    x[0] += 1;
  }
  if (world.rank() + 1 < world.size()) {
    const Transfer send[] = {Transfer::send(world.rank() + 1, all)};
    world.exchange(send, here.stream);
  }
  check(x[0] == 7 + world.rank(), "a value went down a chain of exchanges");
}

int64_t sum_of_ranks(Communicator& c, int64_t mine) {
  Inline here;
  std::vector<int64_t> x{mine};
  c.all_reduce(buffer_of(std::span(x)), Reduce::sum, here.stream);
  return x[0];
}

void case_split(Communicator& world) {
  const int n = world.size(), me = world.rank();
  auto parity = world.split(me % 2, 0);
  int64_t wanted = 0;
  int members = 0;
  for (int r = me % 2; r < n; r += 2) {
    wanted += r;
    ++members;
  }
  check(parity->size() == members && parity->rank() == me / 2, "split by parity");
  check(sum_of_ranks(*parity, me) == wanted, "a sum in a split");
  auto reversed = world.split(0, -me);
  check(reversed->size() == n && reversed->rank() == n - 1 - me, "split with reversed keys");
  check(sum_of_ranks(*reversed, me) == int64_t{n} * (n - 1) / 2, "a sum in a reversed split");
  auto without_first = world.split(me == 0 ? -1 : 3, me);
  check((without_first == nullptr) == (me == 0), "a negative colour gets nothing");
  if (without_first != nullptr) {
    auto nested = without_first->split(0, 0);
    check(sum_of_ranks(*nested, 1) == n - 1, "a sum in a nested split");
  }
  check(sum_of_ranks(world, 1) == n, "the parent still works");
}

void case_concurrent_communicators(Communicator& world) {
  auto first = world.split(0, world.rank());
  auto second = world.split(0, world.rank());
  Device device(DeviceKind::cpu, 0, 1);
  Stream a = Stream::worker(device, "a"), b = Stream::worker(device, "b");
  AbortOnUnwind guard(world);
  constexpr int rounds = 40;
  std::vector<std::vector<float>> x, y;
  for (uint64_t i = 0; i < rounds; ++i) {
    x.push_back(values<float>(i, world.rank(), 501));
    y.push_back(values<float>(1000 + i, world.rank(), 77));
  }
  for (size_t i = 0; i < rounds; ++i) {
    first->all_reduce(buffer_of(std::span(x[i])), Reduce::sum, a);
    second->all_reduce(buffer_of(std::span(y[i])), Reduce::max, b);
  }
  a.synchronize();
  b.synchronize();
  for (uint64_t i = 0; i < rounds; ++i) {
    expect_equal(x[i], reduced_values<float>(i, world.size(), 501, Reduce::sum), "stream a");
    expect_equal(y[i], reduced_values<float>(1000 + i, world.size(), 77, Reduce::max), "stream b");
  }
}

void case_events_order_streams(Communicator& world) {
  Device device(DeviceKind::cpu, 0, 1);
  Stream comm = Stream::worker(device, "comm"), compute = Stream::worker(device, "compute");
  AbortOnUnwind guard(world);
  std::vector<int32_t> x(100, world.rank() + 1);
  const Buffer all = buffer_of(std::span(x));
  for (int i = 0; i < 20; ++i) {
    world.all_reduce(all, Reduce::max, comm);
    compute.wait(comm.record());
    compute.run([&x] { ++x[50]; });
    comm.wait(compute.record());
  }
  comm.synchronize();
  check(x[50] == world.size() + 20 && x[0] == world.size(), "work of two streams in event order");
}

void case_barrier(Communicator& world) {
  Inline here;
  for (int i = 0; i < 10; ++i) barrier(world, here.stream);
}

void case_checked_finds_other_calls(Communicator& world) {
  if (world.size() == 1) return;  // nobody to differ from
  Inline here;
  const auto comm = checked(world);
  const int odd = world.size() - 1;
  const bool differs = world.rank() == odd;
  const std::string named = cat("rank ", odd, " calls ");
  std::vector<float> x(12);
  std::vector<BFloat16> narrow(12);
  const Buffer twelve = buffer_of(std::span(x)), other = buffer_of(std::span(narrow));
  const auto reduce = [&](Buffer b, Reduce r) { comm->all_reduce(b, r, here.stream); };
  expect_error([&] { reduce(differs ? twelve.part(0, 11) : twelve, Reduce::sum); },
               cat(named, "all_reduce #0 of 11 x f32 (sum)"));
  expect_error([&] { reduce(differs ? other : twelve, Reduce::sum); },
               cat(named, "all_reduce #1 of 12 x bf16"));
  expect_error([&] { reduce(twelve, differs ? Reduce::max : Reduce::sum); },
               cat(named, "all_reduce #2 of 12 x f32 (max)"));
  const auto broadcast_here = [&] { comm->broadcast(twelve, 0, here.stream); };
  expect_error([&] { differs ? broadcast_here() : reduce(twelve, Reduce::sum); },
               cat(named, "broadcast #3"));
  expect_error([&] { comm->broadcast(twelve, differs ? 1 : 0, here.stream); },
               cat(named, "broadcast #4 of 12 x f32 from rank 1"));
  const auto split_here = [&] { comm->split(0, 0); };
  expect_error([&] { differs ? split_here() : reduce(twelve, Reduce::sum); },
               cat(named, "split #5"));
  reduce(twelve, Reduce::sum);  // and all is well again
}

void case_decorators_agree(Communicator& world) {
  Inline here;
  const auto traffic = std::make_shared<Traffic>();
  std::vector<CommunicationSpan> spans;
  const auto with_check = checked(world);
  const auto counted = counting(*with_check, traffic);
  const auto with_trace = traced(*counted, [&](const CommunicationSpan& s) { spans.push_back(s); });
  const auto comm = throttled(*with_trace, {.bytes_per_second = 1e9, .latency_seconds = 1e-4});
  for (auto run : {case_all_reduce, case_reduce_scatter, case_all_gather, case_all_to_all,
                   case_broadcast, case_exchange, case_pairwise_exchange, case_split}) {
    run(*comm);
  }
  int64_t calls = 0;
  for (const auto& c : traffic->calls) calls += c;
  check(calls > 0 && static_cast<int64_t>(spans.size()) == calls, "each call has a span");
  for (const CommunicationSpan& s : spans) check(s.end >= s.begin, "a call ends after it began");
  traffic->reset();
  std::vector<float> x(static_cast<size_t>(world.size()) * 100);
  comm->all_reduce(buffer_of(std::span(x)), Reduce::sum, here.stream);
  check(traffic->bytes(Call::Op::all_reduce) == 2 * (world.size() - 1) * 100 * 4 &&
            traffic->bytes(Call::Op::all_reduce) == traffic->total_bytes(),
        "an all_reduce sends 2 (n-1)/n of its bytes");
}

void case_exact_gradients(Communicator& world) {
  // An odd number of micro-batches, so that the last slot has idle ranks.
  const int64_t micro_batches = 2 * world.size() + 1, elements = 20000;
  Device device(DeviceKind::cpu, 0, 1);
  std::vector<float> gradients, wanted(static_cast<size_t>(elements));
  for (int64_t g = 0; g < micro_batches; ++g) {
    const auto x = values<float>(static_cast<uint64_t>(g), 0, elements);
    for (size_t i = 0; i < x.size(); ++i) wanted[i] += x[i];
  }
  Stream stream = Stream::worker(device, "comm");
  DataParallel dp(world, stream, {.bucket_bytes = 16384, .exact = true}, elements, {});
  gradients.resize(wanted.size());
  for (int64_t slot = 0; slot < dp.slots(micro_batches); ++slot) {
    const auto g = static_cast<uint64_t>(slot * world.size() + world.rank());
    const auto x = values<float>(g, 0, elements);
    std::copy(x.begin(), x.end(), gradients.begin());
    dp.begin_slot(gradients, slot, micro_batches);
    dp.end_slot();
  }
  dp.finish();
  expect_equal(gradients, wanted, "the exact sum of gradients");
}

void case_wrong_arguments(Communicator& world) {
  Inline here;
  std::vector<float> x(8);
  const Buffer all = buffer_of(std::span(x));
  const Counts wrong(static_cast<size_t>(world.size()), 3);
  expect_error([&] { world.all_gather(all.part(0, 3), wrong, all.part(0, 2), here.stream); },
               "counts that sum to");
  expect_error([&] { world.broadcast(all, world.size(), here.stream); }, "has ranks 0 to");
  const Transfer far[] = {Transfer::send(-1, all)};
  expect_error([&] { world.exchange(far, here.stream); }, "not -1");
}

constexpr CommunicatorCase all_cases[] = {
    {"all_reduce", case_all_reduce},
    {"sums_are_folds_in_rank_order", case_sums_are_folds_in_rank_order},
    {"not_a_number", case_not_a_number},
    {"reduce_scatter", case_reduce_scatter},
    {"all_gather", case_all_gather},
    {"all_to_all", case_all_to_all},
    {"broadcast", case_broadcast},
    {"exchange", case_exchange},
    {"pairwise_exchange", case_pairwise_exchange},
    {"split", case_split},
    {"concurrent_communicators", case_concurrent_communicators},
    {"events_order_streams", case_events_order_streams},
    {"barrier", case_barrier},
    {"checked_finds_other_calls", case_checked_finds_other_calls},
    {"decorators_agree", case_decorators_agree},
    {"exact_gradients", case_exact_gradients},
    {"wrong_arguments", case_wrong_arguments},
};

}  // namespace

std::span<const CommunicatorCase> communicator_cases() { return all_cases; }

}  // namespace shoestring

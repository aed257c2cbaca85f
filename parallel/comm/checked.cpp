#include "parallel/comm/checked.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/text.h"
#include "parallel/comm/decorator.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

enum Field { op_field, dtype_field, count_field, detail_field, sequence_field, compared_fields };
// Behind what is compared, text of where the call is made; the rest of its words are zeros.
constexpr size_t place_words = 18, num_fields = compared_fields + place_words;
// The same length for every kind of call, so that unlike calls meet and compare.
using Record = std::array<int64_t, num_fields>;
constexpr int64_t split_op = num_call_ops;

Record record_of(const Call& call, int64_t sequence) {
  Record r{};
  r[op_field] = static_cast<int64_t>(call.op);
  r[sequence_field] = sequence;
  const View whole = call.op == Call::Op::all_gather ? View(call.out) : call.in;
  r[dtype_field] = static_cast<int64_t>(whole.dtype);
  r[count_field] = whole.count;
  switch (call.op) {
    case Call::Op::all_reduce:
    case Call::Op::reduce_scatter:
      r[detail_field] = static_cast<int64_t>(call.reduce);
      break;
    case Call::Op::broadcast:
      r[detail_field] = call.root;
      break;
    case Call::Op::all_to_all:  // counts differ between ranks and are compared pairwise
      r[count_field] = 0;
      break;
    case Call::Op::all_gather:
    case Call::Op::exchange:
      break;
  }
  // How the whole is cut is part of the call: FNV-1a over the counts.
  if (call.op == Call::Op::reduce_scatter || call.op == Call::Op::all_gather) {
    uint64_t hash = 14695981039346656037u;
    for (int64_t c : call.op == Call::Op::all_gather ? call.out_counts : call.in_counts) {
      hash = (hash ^ static_cast<uint64_t>(c)) * 1099511628211u;
    }
    r[detail_field] += static_cast<int64_t>(hash >> 8) & ~int64_t{0xff};
  }
  return r;
}

bool same_call(const Record& a, const Record& b) {
  return std::equal(a.begin(), a.begin() + compared_fields, b.begin());
}

void tell_place(Record& r) {
  const Whereabouts* const rank = whereabouts();
  if (rank == nullptr) return;
  const std::string place = rank->place();
  if (place.empty()) return;
  const std::string text = cat("rank ", rank->number(), " of all, ", place);
  std::memcpy(&r[compared_fields], text.data(), std::min(text.size(), 8 * place_words - 1));
}

// " (rank 5 of all, step 2, 1F0 ...)"
std::string place_of(const Record& r) {
  std::array<char, 8 * place_words> text{};
  std::memcpy(text.data(), &r[compared_fields], text.size());
  text.back() = 0;
  return text[0] == 0 ? "" : cat(" (", text.data(), ")");
}

std::string text_of_call(const Record& r) {
  const int64_t op = r[op_field];
  if (op == split_op) return cat("split #", r[sequence_field]);
  if (op < 0 || op >= num_call_ops) return "something that is no call";
  const auto kind = static_cast<Call::Op>(op);
  std::string result = cat(name_of(kind), " #", r[sequence_field], " of ");
  if (kind != Call::Op::all_to_all) append(result, r[count_field], " x ");
  append(result, name_of(static_cast<Dtype>(r[dtype_field])));
  if (kind == Call::Op::all_reduce || kind == Call::Op::reduce_scatter) {
    append(result, " (", name_of(static_cast<Reduce>(r[detail_field] & 0xff)), ")");
  }
  if (kind == Call::Op::broadcast) append(result, " from rank ", r[detail_field]);
  return result;
}

std::string text(const Record& r) { return text_of_call(r) + place_of(r); }

// Throws where records differ. The minority is named as diverging; among equals the lowest rank is
// taken to be right.
void compare(const std::vector<Record>& records, const std::string& name) {
  size_t right = 0;
  int64_t most = 0;
  for (size_t r = 0; r < records.size(); ++r) {
    const int64_t same = std::count_if(records.begin(), records.end(), [&](const Record& other) {
      return same_call(other, records[r]);
    });
    if (same > most) {
      most = same;
      right = r;
    }
  }
  if (most == static_cast<int64_t>(records.size())) return;
  std::string differing;
  for (size_t r = 0; r < records.size(); ++r) {
    if (same_call(records[r], records[right])) continue;
    const bool same_text = text_of_call(records[r]) == text_of_call(records[right]);
    append(differing, differing.empty() ? "rank " : ", rank ", r, " calls ",
           text_of_call(records[r]), same_text ? " (cut into other pieces)" : "",
           place_of(records[r]));
  }
  fail(cat("the ranks of '", name, "' make different calls: ", differing, " where rank ", right,
           most > 1 ? cat(" and ", most - 1, " more call ") : std::string(" calls "),
           text(records[right])));
}

class Checked : public Decorator {
 public:
  template <class Inner>
  explicit Checked(Inner&& inner) : Decorator(std::forward<Inner>(inner)) {}

 protected:
  void before(const Call& call, Stream& stream) override {
    if (call.op == Call::Op::exchange) {
      compare_messages(call, stream);
      return;
    }
    Record record = record_of(call, sequence_++);
    tell_place(record);
    compare_calls(record, stream);
    if (call.op == Call::Op::all_to_all) compare_counts(call, stream);
  }
  void after(const Call&, Stream&) override {}
  void before_split() override {
    Record record{};
    record[op_field] = split_op;
    record[sequence_field] = sequence_++;
    tell_place(record);
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    compare_calls(record, stream);
  }
  std::unique_ptr<Communicator> wrap(std::unique_ptr<Communicator> child) override {
    return std::make_unique<Checked>(std::move(child));
  }

 private:
  void compare_calls(const Record& record, Stream& stream);
  void compare_counts(const Call& call, Stream& stream);
  void compare_messages(const Call& call, Stream& stream);

  int64_t sequence_ = 0;
};

void Checked::compare_calls(const Record& record, Stream& stream) {
  const auto ranks = static_cast<size_t>(size());
  auto records = std::make_shared<std::vector<Record>>(ranks);
  (*records)[static_cast<size_t>(rank())] = record;
  const std::vector<int64_t> counts(ranks, num_fields);
  const Buffer all = buffer_of(std::span(records->front().data(), ranks * num_fields));
  inner().all_gather(all.part(rank() * num_fields, num_fields), counts, all, stream);
  stream.run([records, name = name()] { compare(*records, name); });
}

void Checked::compare_counts(const Call& call, Stream& stream) {
  struct Counts {
    std::vector<int64_t> sent, expected, announced;
  };
  auto counts = std::make_shared<Counts>();
  counts->sent.assign(call.in_counts.begin(), call.in_counts.end());
  counts->expected.assign(call.out_counts.begin(), call.out_counts.end());
  counts->announced.resize(counts->expected.size());
  const std::vector<int64_t> ones(counts->sent.size(), 1);
  inner().all_to_all(view_of(std::span(counts->sent)), ones,
                     buffer_of(std::span(counts->announced)), ones, stream);
  stream.run([this, counts] {
    for (size_t r = 0; r < counts->expected.size(); ++r) {
      if (counts->announced[r] == counts->expected[r]) continue;
      fail(cat("all_to_all on '", name(), "': rank ", r, " sends ", counts->announced[r],
               " elements to rank ", rank(), ", which expects ", counts->expected[r]));
    }
  });
}

void Checked::compare_messages(const Call& call, Stream& stream) {
  struct Headers {
    std::vector<Record> mine, theirs;  // one a transfer; the other side's unused
    std::vector<int> peers;            // -1: a send
  };
  const size_t n = call.transfers.size();
  auto headers = std::make_shared<Headers>(
      Headers{std::vector<Record>(n), std::vector<Record>(n), std::vector<int>(n, -1)});
  std::vector<Transfer> list;
  for (size_t i = 0; i < n; ++i) {
    const Transfer& t = call.transfers[i];
    const bool sends = t.kind == Transfer::Kind::send;
    const View payload = sends ? t.out : View(t.in);
    Record& mine = headers->mine[i];
    mine = Record{static_cast<int64_t>(Call::Op::exchange), static_cast<int64_t>(payload.dtype),
                  payload.count};
    tell_place(mine);
    if (sends) {
      list.push_back(Transfer::send(t.peer, view_of(std::span(mine))));
    } else {
      list.push_back(Transfer::receive(t.peer, buffer_of(std::span(headers->theirs[i]))));
      headers->peers[i] = t.peer;
    }
  }
  inner().exchange(list, stream);
  stream.run([this, headers] {
    for (size_t i = 0; i < headers->peers.size(); ++i) {
      if (headers->peers[i] < 0 || same_call(headers->theirs[i], headers->mine[i])) continue;
      const std::string message =
          cat("on '", name(), "' rank ", headers->peers[i], " calls ", text(headers->theirs[i]),
              " where rank ", rank(), " expects ", text(headers->mine[i]));
      abort(message);  // the sender does not see the difference
      fail(message);
    }
  });
}

}  // namespace

std::unique_ptr<Communicator> checked(Communicator& inner) {
  return std::make_unique<Checked>(inner);
}

}  // namespace shoestring

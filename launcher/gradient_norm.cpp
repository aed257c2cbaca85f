#include "launcher/gradient_norm.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "parallel/comm/whereabouts.h"
#include "parallel/ordered_sums.h"

namespace shoestring {
namespace {

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// Where the elements of a rank's part stand: those of the whole parameter where they are a run of
// it that begins at a unit; else a place of the part's own behind it.
int64_t place_in(const ParamInfo& info, int shard) {
  const ParamShard& s = info.shard;
  if (!s.cut()) return 0;
  const bool rows = s.rows.size() == 1 && info.shape.columns() == s.whole.columns();
  const int64_t begin = rows ? s.rows[0].global * info.shape.columns() : 0;
  const int64_t each = rows ? s.rows[0].count * info.shape.columns() : 1;
  if (rows && each % norm_unit == 0 && begin % norm_unit == 0) return begin;
  return (1 + shard) * round_up(s.whole.elements(), norm_block);
}

}  // namespace

GradientNorm::GradientNorm(const ModelPart& part, const ParamStore& store,
                           const StepGradients& gradients)
    : store_(store), gradients_(gradients) {
  const Mesh& mesh = part.mesh();
  const int slices = mesh.extent(MeshAxis::etp);
  const int64_t places =
      1 + std::max(mesh.extent(MeshAxis::tp), mesh.extent(MeshAxis::ep) * slices);
  const MeshPlace& place = part.place();
  std::map<std::string, int64_t> begins;
  int64_t next = 0;
  for (const ParamInfo& p : parameters_of(part.model(), whole_model(part.model()))) {
    begins[p.name] = next;
    next += places * round_up(p.shape.elements(), norm_block);
    elements_ += p.shape.elements();
  }
  for (const ParamRange& range : gradients.counted()) {
    const Param& p = store.params()[static_cast<size_t>(range.param)];
    const int shard = is_of_experts(p.info) ? place[MeshAxis::ep] * slices + place[MeshAxis::etp]
                                            : place[MeshAxis::tp];
    const int64_t begin = begins.at(p.info.name) + place_in(p.info, shard) + range.begin;
    check(range.begin % norm_unit == 0, "a share of a parameter begins between two units");
    runs_.push_back({.flat = {p.offset + range.begin, p.offset + range.end},
                     .position = {begin, begin + range.end - range.begin},
                     .param = p.index});
  }
}

// Of units, the last one filled up with zeros: what follows in the store may be somebody else's.
std::vector<double> GradientNorm::terms_of(const Run& run) const {
  const int64_t whole = run.flat.elements() / norm_unit * norm_unit;
  const std::span<const float> from{gradients_.gradients().at(run.flat),
                                    static_cast<size_t>(run.flat.elements())};
  const FlatRange position{run.position.begin, run.position.begin + whole};
  std::vector<double> terms =
      square_sums(store_.device(), {.values = from, .first = run.position.begin}, position);
  if (whole == run.flat.elements()) return terms;
  std::array<float, norm_unit> last = {};
  std::copy(from.begin() + whole, from.end(), last.begin());
  const FlatRange unit{position.end, position.end + norm_unit};
  const std::vector<double> rest = square_sums(
      store_.device(), {.values = std::span<const float>(last), .first = unit.begin}, unit);
  terms.insert(terms.end(), rest.begin(), rest.end());
  return terms;
}

double GradientNorm::norm(Communicator& world, Stream& stream) const {
  std::vector<int64_t> own;  // begin, end, terms
  std::vector<double> own_terms;
  for (const Run& run : runs_) {
    const std::vector<double> terms = terms_of(run);
    own.insert(own.end(),
               {run.position.begin, run.position.end, static_cast<int64_t>(terms.size())});
    own_terms.insert(own_terms.end(), terms.begin(), terms.end());
  }
  const auto table = gather_values<int64_t>(world, stream, own);
  const auto terms = gather_values<double>(world, stream, own_terms);
  struct Piece {
    FlatRange range;
    size_t first, count;
  };
  std::vector<Piece> pieces;
  int64_t elements = 0;
  size_t first = 0;
  for (size_t i = 0; i < table.size(); i += 3) {
    const auto count = static_cast<size_t>(table[i + 2]);
    elements += table[i + 1] - table[i];
    pieces.push_back({{table[i], round_up(table[i + 1], norm_unit)}, first, count});
    first += count;
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.range.begin < b.range.begin; });
  if (elements != elements_) {
    fail(cat("the ranks count ", counted(elements, "element"), " of the gradient, but the model ",
             "has ", elements_));
  }
  std::vector<FlatRange> ranges;
  std::vector<double> ordered;
  for (const Piece& piece : pieces) {
    ranges.push_back(piece.range);
    const auto from = terms.begin() + static_cast<int64_t>(piece.first);
    ordered.insert(ordered.end(), from, from + static_cast<int64_t>(piece.count));
  }
  return std::sqrt(sum_of_squares(ranges, ordered));
}

std::array<double, num_param_classes> GradientNorm::class_squares(Communicator& world,
                                                                  Stream& stream) const {
  std::array<double, num_param_classes> squares = {};
  for (const Run& run : runs_) {
    const ParamInfo& info = store_.params()[static_cast<size_t>(run.param)].info;
    const std::vector<double> terms = terms_of(run);
    squares[static_cast<size_t>(info.param_class)] +=
        std::accumulate(terms.begin(), terms.end(), 0.0);
  }
  world.all_reduce(buffer_of(std::span(squares)), Reduce::sum, stream);
  const Awaiting waits("gradient norm");
  stream.synchronize();
  return squares;
}

}  // namespace shoestring

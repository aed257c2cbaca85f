#include "parallel/param_units.h"

#include <algorithm>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

bool begins(std::string_view text, std::string_view with) { return text.starts_with(with); }

// Of a name below "layers.i." or "mtp.k.". A sparse block's router and the norm before it belong to
// what runs before rows travel (core/layers/decoder_block.h).
std::string_view part_of(std::string_view rest, bool module, bool sparse) {
  if (begins(rest, "attention")) return "attention";  // with attention_norm
  if (module && begins(rest, "final_norm")) return "head";
  if (begins(rest, "moe.experts")) return "experts";
  if (begins(rest, "moe.shared")) return "shared";
  if (begins(rest, "moe") || (sparse && begins(rest, "mlp_norm"))) return "attention";
  if (module && !begins(rest, "mlp")) return "projection";
  return "mlp";
}

bool has(const ParamStore& store, std::string_view prefix) {
  return std::any_of(store.params().begin(), store.params().end(),
                     [&](const Param& p) { return begins(p.info.name, prefix); });
}

// Of an uncut parameter: the begin of each matrix but the first, where a shard may begin.
std::vector<int64_t> cuts_of(const Param& p) {
  std::vector<int64_t> cuts;
  int64_t at = p.offset;
  for (const int64_t rows : p.info.parts) {
    at += rows * p.info.shape.columns();
    if (at < p.offset + p.elements && at % ParamStore::alignment == 0) cuts.push_back(at);
  }
  return cuts;
}

}  // namespace

std::string segment_of(const ParamStore& store, const std::string& name) {
  const bool layer = begins(name, "layers."), module = begins(name, "mtp.");
  if (layer || module) {
    const size_t number = name.find('.') + 1, rest = name.find('.', number) + 1;
    if (rest > number) {
      const std::string block = name.substr(0, rest);
      const bool sparse = has(store, block + "moe.");
      return cat(block, part_of(std::string_view(name).substr(rest), module, sparse));
    }
  }
  const std::string stem = name.substr(0, name.rfind('.'));
  return stem == "final_norm" ? "head" : stem;
}

std::vector<ParamUnit> units_of(const ParamStore& store, int first, int last) {
  check(first >= 0 && first <= last && static_cast<size_t>(last) <= store.params().size(),
        "units of parameters that the store does not have");
  const bool modules = has(store, "mtp."), tied = !has(store, "head.");
  std::vector<ParamUnit> units;
  for (int i = first; i < last; ++i) {
    const Param& p = store.params()[static_cast<size_t>(i)];
    const std::string name = segment_of(store, p.info.name);
    const bool behind = static_cast<size_t>(i) + 1 < store.params().size();
    const int64_t end =
        behind ? store.params()[static_cast<size_t>(i) + 1].offset : store.elements();
    if (units.empty() || units.back().name != name) {
      const bool held = (name == "embedding" && has(store, "final_norm.") && (modules || tied)) ||
                        (name == "head" && modules && !tied);
      units.push_back({.name = name, .first = i, .range = {p.offset, end}, .held = held});
    }
    units.back().last = i + 1;
    units.back().range.end = end;
  }
  return units;
}

std::vector<FlatRange> ranges_of(const std::vector<ParamUnit>& units) {
  std::vector<FlatRange> ranges;
  for (const ParamUnit& unit : units) ranges.push_back(unit.range);
  return ranges;
}

std::vector<ParamExtent> extents_of(const ParamStore& store, const ExtentOptions& options) {
  const auto count = static_cast<int>(store.params().size());
  const int last = options.last < 0 ? count : options.last;
  check(options.first >= 0 && options.first <= last && last <= count,
        "extents of parameters that the store does not have");
  std::vector<ParamExtent> result;
  for (int i = options.first; i < last; ++i) {
    const Param& p = store.params()[static_cast<size_t>(i)];
    const bool whole = options.whole != nullptr && options.whole(p);
    result.push_back({.begin = p.offset,
                      .end = p.offset + p.elements,
                      .whole = whole,
                      .cuts = whole ? cuts_of(p) : std::vector<int64_t>(),
                      .cost = options.cost == nullptr ? 0 : options.cost(p)});
  }
  return result;
}

std::vector<ParamExtent> extents_of(const ParamStore& store,
                                    const std::function<bool(const Param&)>& whole) {
  return extents_of(store, ExtentOptions{.whole = whole});
}

}  // namespace shoestring

#pragma once
// The section `data` of a run's config.

#include <optional>
#include <string>
#include <vector>

#include "core/fields.h"

namespace shoestring {

struct SourceConfig {
  std::string name;
  std::string path;
  double weight = 1;
  std::optional<double> held_out;

  template <class V>
  void visit(V&& v) {
    v("name", name, Field{.help = "how metrics and messages call this source; default: the path"});
    v("path", path, Field{.help = "token store written by `shoestring data pack`"});
    v("weight", weight,
      Field{.help = "share of the samples, relative to the other sources; 0: only evaluated",
            .min = 0,
            .max = 1e12});
    v("held_out", held_out,
      Field{.help = "fraction of this source's documents kept for evaluation; default: the "
                    "section's; 1: a source for evaluation only. A text that stands in two "
                    "sources is held out of both only where their fractions are equal",
            .min = 0,
            .max = 1});
  }
  const std::string& label() const { return name.empty() ? path : name; }
};

struct LoaderConfig {
  std::vector<SourceConfig> sources;
  double held_out = 0.005;
  bool cross_document_attention = false;

  template <class V>
  void visit(V&& v) {
    v("held_out", held_out,
      Field{.help = "fraction of the documents kept for evaluation, chosen by a hash of their text",
            .min = 0,
            .max = 1});
    v("cross_document_attention", cross_document_attention,
      Field{.help = "let tokens attend to earlier documents of the same row"});
    v("sources", sources, Field{.help = "token stores and their shares of the samples"});
  }
  // A config without sources is whole (it can be shown and compared); a Loader refuses it.
  void validate(Complaints& c) const;
};

}  // namespace shoestring

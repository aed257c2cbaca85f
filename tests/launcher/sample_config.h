#pragma once
// A config with every kind of field, for the tests of the config system.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/fields.h"

namespace shoestring {

struct SampleInner {
  double rate = 0.5;
  std::vector<double> betas = {0.9, 0.95};
  template <class V>
  void visit(V&& v) {
    v("rate", rate, Field{.help = "how fast", .unit = "1/s", .min = 0, .max = 1});
    v("betas", betas, Field{.help = "decays", .min = 0});
  }
};

struct SampleStage {
  int64_t tokens = 100;
  std::string name = "stage";
  SampleInner inner;
  template <class V>
  void visit(V&& v) {
    v("tokens", tokens, Field{.help = "length", .unit = "tokens", .min = 1});
    v("name", name, Field{.help = "what it is called"});
    v("inner", inner, Field{.help = "inside"});
  }
  void validate(Complaints& c) const {
    if (name.empty()) c.add("name", "is empty");
  }
};

struct SampleTrain {
  int64_t steps = 10;
  bool exact = false;
  std::string dtype = "f32";
  std::optional<double> clip;
  std::optional<std::string> from;
  std::optional<int64_t> limit = 5;
  std::optional<bool> flag;
  SampleInner inner;
  template <class V>
  void visit(V&& v) {
    v("steps", steps, Field{.help = "optimiser steps", .min = 1, .max = 1e12});
    v("exact", exact, Field{.help = "same bits"});
    v("dtype", dtype, Field{.help = "compute type", .choices = "f32|bf16"});
    v("clip", clip, Field{.help = "largest norm", .min = 0});
    v("from", from, Field{.help = "start here"});
    v("limit", limit, Field{.help = "not more"});
    v("flag", flag, Field{.help = "three-valued"});
    v("inner", inner, Field{.help = "inside"});
  }
  void validate(Complaints& c) const {
    if (exact && dtype == "bf16") c.add("exact", "needs dtype = \"f32\"");
    if (steps == 13) c.add("steps", "must not be 13");
  }
};

struct SampleConfig {
  std::string title = "untitled";
  std::vector<std::string> paths;
  std::vector<int64_t> sizes = {1, 2};
  std::vector<bool> flags;
  SampleTrain train;
  std::vector<SampleStage> stages = {SampleStage{}};
  template <class V>
  void visit(V&& v) {
    v("title", title, Field{.help = "for people | and tables"});
    v("paths", paths, Field{.help = "where"});
    v("sizes", sizes, Field{.help = "how large", .min = 1});
    v("flags", flags, Field{.help = "switches"});
    v("train", train, Field{.help = "The loop."});
    v("stages", stages, Field{.help = "By tokens"});
  }
};

}  // namespace shoestring

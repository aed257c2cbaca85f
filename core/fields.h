#pragma once
// The visit protocol of config structs. A struct sits beside its owner and lists its fields once:
//
//   struct AdamConfig {
//     double beta1 = 0.9;
//     template <class V> void visit(V&& v) {
//       v("beta1", beta1, Field{.help = "decay of the first moment", .min = 0, .max = 1});
//     }
//     void validate(Complaints& c) const;   // optional: rules between fields
//   };
//
// TOML reader, --set, resolved dump, hash, comparison of two runs and the reference page are
// visitors (launcher/config). Field types: bool, int64_t, double, std::string, std::vector of
// these, std::optional of these, a nested struct (a section), std::vector of structs (array of
// tables). The default is the member's initialiser.

#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

struct Field {
  std::string_view help;
  std::string_view unit = "";  // "tokens", "seconds", "bytes", "USD/hour", ...
  double min = -std::numeric_limits<double>::infinity();  // inclusive range of numbers
  double max = std::numeric_limits<double>::infinity();
  std::string_view choices = "";  // of strings: "adamw|muon"; empty = any
};

// Collects everything that is wrong, so that a user sees all complaints at once.
class Complaints {
 public:
  // `key` is relative to the struct ("beta1"); the reader adds the section and the position.
  void add(std::string_view key, std::string message) {
    items_.push_back({std::string(key), std::move(message)});
  }
  struct Item {
    std::string key, message;
  };
  const std::vector<Item>& items() const { return items_; }

 private:
  std::vector<Item> items_;
};

// A struct with a visit member is a section.
struct FieldProbe {
  template <class T>
  void operator()(std::string_view, T&, const Field&) {}
};
template <class T>
concept Section = requires(T& t, FieldProbe& probe) {
  t.visit(probe);
};
template <class T>
concept Validated = requires(const T& t, Complaints& c) {
  t.validate(c);
};

}  // namespace shoestring

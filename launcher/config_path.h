#pragma once
// Dotted keys: "train.steps", "stages.0.tokens" (elements of arrays count from 0).

#include <optional>
#include <string>
#include <string_view>

#include "launcher/config_complaints.h"
#include "launcher/config_fields.h"

namespace shoestring {

struct FieldTarget {
  std::string key;
  FieldNode node;
};

// The field or section that `key` names. Adds a complaint with `position` and returns nothing when
// there is none.
std::optional<FieldTarget> find_key(const FieldList& root, std::string_view key,
                                    const std::string& position, ConfigComplaints& complaints);

}  // namespace shoestring

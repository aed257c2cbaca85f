#pragma once
// Where the keys were set that an error found behind the reading of a config is about.

#include <string>
#include <vector>

#include "launcher/config_fields.h"

namespace shoestring {

// "a.toml:3:6: mesh.tp = 3 does not divide the 4 query heads [model.heads: --set #1]": the place of
// the first key in front, those of the others behind it. Keys that take part are the ones that the
// text names, in full or, in the section of the key it begins with, by their last part, and `with`;
// those that nobody set are left out.
std::string with_places(std::string text, const KeyPositions& positions,
                        const std::vector<std::string>& with = {});

}  // namespace shoestring

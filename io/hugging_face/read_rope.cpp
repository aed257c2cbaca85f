#include "io/hugging_face/read_rope.h"

#include <algorithm>

namespace shoestring {
namespace {

double positive(const ConfigKeys& keys, const char* key, double fallback) {
  const double value = keys.number_or(key, fallback);
  if (value <= 0) keys.refuse(key, "but must be above 0");
  return value;
}

double positive(const ConfigKeys& keys, const char* key) {
  if (!keys.has(key)) keys.refuse(key, "but this kind of scaling needs it");
  return positive(keys, key, 1);
}

void read_factor(const ConfigKeys& keys, RopeConfig& rope) {
  rope.factor = positive(keys, "factor");
  if (rope.factor < 1) keys.refuse("factor", "but must be at least 1");
}

void read_llama3(const ConfigKeys& keys, RopeConfig& rope) {
  read_factor(keys, rope);
  rope.low_freq_factor = positive(keys, "low_freq_factor");
  rope.high_freq_factor = positive(keys, "high_freq_factor");
}

void read_yarn(const ConfigKeys& keys, RopeConfig& rope, int64_t max_positions) {
  // Without the first length both are the longest, and the factor 1 would be nobody's wish.
  if (keys.has("factor") || !keys.has("original_max_position_embeddings")) {
    read_factor(keys, rope);
  } else {
    rope.factor = std::max(
        1.0, static_cast<double>(max_positions) / static_cast<double>(rope.original_max_positions));
  }
  rope.beta_fast = positive(keys, "beta_fast", 32);
  rope.beta_slow = positive(keys, "beta_slow", 1);
  rope.attention_factor = keys.has("attention_factor") ? positive(keys, "attention_factor") : 0;
  rope.mscale = keys.number_or("mscale", 0);
  rope.mscale_all_dim = keys.number_or("mscale_all_dim", 0);
  if (rope.mscale < 0) keys.refuse("mscale", "but must be at least 0");
  if (rope.mscale_all_dim < 0) keys.refuse("mscale_all_dim", "but must be at least 0");
  if (!keys.flag_or("truncate", true)) {
    keys.refuse("truncate", "but the corners of the blend are whole dims here");
  }
}

}  // namespace

RopeConfig read_rope(const ConfigKeys& keys, double theta, int64_t max_positions) {
  RopeConfig rope;
  rope.theta = keys.number_or("rope_theta", theta);
  const bool older = keys.has("rope_scaling");
  const bool either = older || keys.has("rope_parameters");
  if (!either) {
    if (rope.theta < 1) keys.refuse("rope_theta", "but must be at least 1");
    return rope;
  }
  const ConfigKeys own = keys.object(older ? "rope_scaling" : "rope_parameters");
  rope.theta = own.number_or("rope_theta", rope.theta);
  if (rope.theta < 1) own.refuse("rope_theta", "but must be at least 1");
  if (own.number_or("partial_rotary_factor", 1) != 1) {
    own.refuse("partial_rotary_factor", "but all dims of a head are rotated here");
  }
  const char* key = own.has("rope_type") ? "rope_type" : "type";
  const std::string type = own.text_or(key, "default");
  if (type == "default") return rope;
  rope.scaling = type;
  rope.original_max_positions =
      own.whole_or("original_max_position_embeddings", max_positions, {1, int64_t{1} << 32});
  if (type == "linear") {
    read_factor(own, rope);
  } else if (type == "llama3") {
    read_llama3(own, rope);
  } else if (type == "yarn") {
    read_yarn(own, rope, max_positions);
  } else {
    own.refuse(key, "but the kinds that are read are default, linear, llama3 and yarn");
  }
  Complaints complaints;
  rope.validate(complaints);
  for (const Complaints::Item& item : complaints.items()) own.refuse(item.key, item.message);
  return rope;
}

}  // namespace shoestring

// Layouts at random among those that are legal equal one rank. The seeds are printed with what
// fails; SHOESTRING_LAYOUT_SEED=N runs other ones, from N.

#include <random>
#include <set>

#include "core/environment.h"
#include "tests/conformance/step_case.h"
#include "tests/parallel/random_mesh.h"

namespace shoestring {
namespace {

template <class T>
const T& any_of(std::mt19937_64& random, const std::vector<T>& list) {
  return list[random() % list.size()];
}

MeshCase random_case(uint64_t seed) {
  std::mt19937_64 random(seed);
  do {
    MeshCase c;
    c.model = step_model(any_of<std::string>(random, {"llama", "qwen3", "mixtral", "deepseek-v3"}));
    c.model.layers = one_of(random, {3, 4, 5, 6, 7});
    c.length = one_of(random, {12, 16, 24});
    c.micros = static_cast<int>(one_of(random, {4, 6, 8, 12, 16, 18}));
    c.ranks = static_cast<int>(one_of(random, {2, 3, 4, 5, 6, 8, 9, 10, 12}));
    c.part.schedule = any_of(random, schedule_entries()).name;
    c.part.context = random() % 2 == 0 ? ContextKind::ring : ContextKind::all_to_all;
    c.part.mesh.order = random_order(random);
    c.part.mesh.ranks_per_node = divisor_of(random, c.ranks);
    c.recompute = any_of<Recompute>(random, {Recompute::none, Recompute::norms, Recompute::block});
    c.exact = random() % 3 == 0;
    c.part.tensor_chunks = static_cast<int>(one_of(random, {0, 1, 2, 3, 50}));
    c.zero_stage = one_of(random, {0, 1, 2, 3});
    c.documents = random() % 2 == 0;
    const std::vector<MeshConfig> legal = legal_layouts(question_of(c));
    if (legal.empty()) continue;
    c.part.mesh = any_of(random, legal);
    return c;
  } while (true);
}

uint64_t first_seed() {
  const auto given = environment_variable("SHOESTRING_LAYOUT_SEED");
  return given ? std::stoull(*given) : 1;
}

TEST(RandomLayouts, EqualOneRank) {
  std::set<std::string> seen;
  int sliced = 0;
  for (uint64_t seed = first_seed(); seed < first_seed() + 40; ++seed) {
    const MeshCase c = random_case(seed);
    SCOPED_TRACE(cat("SHOESTRING_LAYOUT_SEED=", seed, ": ", text_of(c)));
    OneRank alone;
    expect_step_parity(c, alone);
    seen.insert(text_of(c));
    sliced += c.part.mesh.etp > 1 ? 1 : 0;
  }
  EXPECT_GE(seen.size(), 30u);
  EXPECT_GE(sliced, 3) << "layouts with slices of experts";
}

// With fewer micro-batches than a schedule needs a layout is refused, by name and number; with just
// enough it runs, and with fewer than ranks where the schedule needs none.
TEST(RandomLayouts, MicroBatchesAtAndBelowTheNeed) {
  OneRank alone;
  for (const ScheduleEntry& entry : schedule_entries()) {
    for (const int64_t pp : {2, 4}) {
      MeshCase c;
      c.model = step_model("llama");
      c.model.layers = 8;
      c.ranks = static_cast<int>(pp);
      c.part.mesh.pp = pp;
      c.part.mesh.dp_shard = 1;
      c.part.schedule = entry.name;
      int refused = 0, least = 0;
      for (c.micros = 1; least == 0; ++c.micros) {
        SCOPED_TRACE(cat(entry.name, ", ", pp, " ranks, ", c.micros, " micro-batches"));
        if (is_legal(question_of(c))) {
          expect_step_parity(c, alone);
          least = c.micros;
          continue;
        }
        ++refused;
        const std::vector<LayoutComplaint> complaints = check_layout(question_of(c));
        ASSERT_FALSE(complaints.empty());
        EXPECT_EQ(complaints[0].key, "pp");
        const std::string& message = complaints[0].message;
        EXPECT_NE(message.find(cat("with ", entry.name, " needs ")), std::string::npos) << message;
        const char* there = c.micros == 1 ? "there is " : "there are ";
        EXPECT_NE(message.find(cat(there, c.micros)), std::string::npos) << message;
        try {
          run_mesh(c);
          ADD_FAILURE() << "it ran";
        } catch (const Error& e) {
          EXPECT_EQ(e.code(), ExitCode::usage);
          const std::string text = e.what();
          EXPECT_NE(text.find(cat(entry.name, " needs ")), std::string::npos) << text;
          EXPECT_NE(text.find(cat(c.micros, " micro-batches")), std::string::npos) << text;
        }
      }
      const ScheduleNeeds needs = needs_of({.name = entry.name, .ranks = static_cast<int>(pp)});
      const int64_t wanted = std::max(
          {needs.min_micro_batches, needs.min_per_rank * pp, needs.multiple_per_rank * pp});
      EXPECT_EQ(least, wanted) << entry.name;
      EXPECT_EQ(refused, wanted - 1) << entry.name;
    }
  }
}

}  // namespace
}  // namespace shoestring

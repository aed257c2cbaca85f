#include "io/pack_reader.h"

#include <xxhash.h>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

// The pieces that reach the writer, joined by bars.
std::string pieces_read(const PackOptions& options, PackState& state,
                        const std::vector<DocumentRecord>& packed) {
  const auto inputs = list_inputs(options.inputs, TextFormat::text, nullptr);
  const TextEncoder encoder = byte_encoder();
  std::unique_ptr<PackReader> reader;
  PackPipeline pipeline(encoder, {.threads = 1, .text_bytes = 1 << 20});
  reader = std::make_unique<PackReader>(options, inputs, state, pipeline);
  pipeline.start([&] { reader->run(state.inputs.size(), packed); });
  std::string text;
  PackWork work;
  while (pipeline.take(work)) {
    for (const PackItem& item : work.items) {
      for (size_t i = 0; i < item.ids.size(); i += 2) {
        text += item.ids[i + 1] == 0 ? static_cast<char>(item.ids[i]) : '|';
      }
    }
    if (work.at_end) work.at_end();
    pipeline.release(work.text_bytes);
  }
  return text;
}

uint64_t hash_of(const std::string& text) { return XXH3_64bits(text.data(), text.size()); }

class PackReaderTest : public testing::Test {
 protected:
  PackReaderTest() {
    write_file(folder_ / "a.txt", "one\ntwo\n" + long_ + "\nend\n");
    options_.inputs = {folder_ / "a.txt"};
    options_.text.split = DocumentSplit::lines;
    options_.text.piece_bytes = 64;
  }
  const ScratchFolder folder_;
  const std::string long_ = std::string(60, 'x') + " " + std::string(60, 'y');
  PackOptions options_;
  PackState state_;
};

TEST_F(PackReaderTest, ReadsDocumentsAndTellsTheEndsOfInputs) {
  EXPECT_EQ(pieces_read(options_, state_, {}), "one|two|" + long_ + "|end|");
  ASSERT_EQ(state_.inputs.size(), 1u);
  EXPECT_EQ(state_.inputs[0].documents, 4);
  EXPECT_EQ(state_.inputs[0].cut, 1);
}

TEST_F(PackReaderTest, LeavesOutWhatIsPacked) {
  const std::vector<DocumentRecord> packed = {
      {.tokens = 4, .text_hash = hash_of("one"), .text_bytes = 3},
      {.tokens = 4, .text_hash = hash_of("two"), .text_bytes = 3}};
  EXPECT_EQ(pieces_read(options_, state_, packed), long_ + "|end|");
  state_ = {};
  state_.open = {.tokens = 60, .text_bytes = 60, .text_hash = hash_of(long_.substr(0, 60))};
  EXPECT_EQ(pieces_read(options_, state_, packed), long_.substr(60) + "|end|");
}

TEST_F(PackReaderTest, RefusesOtherDocuments) {
  const auto refused = [&] {
    expect_error(ExitCode::data, {"a.txt has changed since", "--restart"},
                 [&] { pieces_read(options_, state_, {}); });
  };
  state_.open = {.tokens = 60, .text_bytes = 60, .text_hash = 1};  // ends before it
  refused();
  write_file(folder_ / "a.txt", long_);
  refused();  // another text
  state_.open = {.tokens = 61, .text_bytes = 61, .text_hash = hash_of(long_.substr(0, 61))};
  refused();  // cut elsewhere
}

}  // namespace
}  // namespace shoestring

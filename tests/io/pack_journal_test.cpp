#include "io/pack_journal.h"

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

PackedInput some_input(const std::string& path) {
  return {.path = path, .bytes = 10, .digest = 1, .modified = 2, .documents = 1};
}

// A journal with two commits; the second has one more input.
void write_two_commits(const std::string& folder) {
  PackJournal journal(folder, "signature", 77, 2);
  PackState state = journal.state();
  for (int i = 1; i <= 2; ++i) {
    journal.tokens().append(std::string(6, 't'));
    journal.documents().append(std::string(sizeof(DocumentRecord), 'd'));
    state.tokens += 3;
    state.documents += 1;
    state.inputs.push_back(some_input(cat("in", i)));
    journal.commit(state);
  }
}

TEST(PackJournal, GoesBackToTheLastWholeCommit) {
  ScratchFolder folder;
  write_two_commits(folder.path());
  const std::string journal = read_file(folder / "journal");
  const size_t start = journal.find('\n') + 1;
  const size_t first = journal.find("\"documents\":1,\"tokens\":3");
  const size_t first_end = journal.find('\n', first) + 1;
  std::vector<size_t> sizes = {start - 1, start,         start + 1,          first_end - 1,
                               first_end, first_end + 1, journal.size() - 1, journal.size()};
  for (size_t size = 0; size < journal.size(); size += 41) sizes.push_back(size);
  for (size_t size : sizes) {
    write_file(folder / "journal", journal.substr(0, size));
    write_file(folder / "tokens.raw", std::string(15, 't'));
    write_file(folder / "documents.raw", std::string(3 * sizeof(DocumentRecord), 'd'));
    const PackJournal again(folder.path(), "signature", 99, 2);
    const int64_t commits = size == journal.size() ? 2 : size >= first_end ? 1 : 0;
    ASSERT_EQ(again.state().documents, commits) << size;
    EXPECT_EQ(again.state().inputs.size(), static_cast<size_t>(commits));
    EXPECT_EQ(again.state().created, size >= start ? 77 : 99);
    EXPECT_EQ(std::filesystem::file_size(folder / "tokens.raw"),
              static_cast<uint64_t>(6 * commits));
  }
}

// Tokens of a document that has not ended are kept with the commit that counts them.
TEST(PackJournal, KeepsAPartOfADocument) {
  ScratchFolder folder;
  write_two_commits(folder.path());
  {
    PackJournal journal(folder.path(), "signature", 99, 2);
    PackState state = journal.state();
    EXPECT_EQ(state.open.tokens, 0);
    journal.tokens().append(std::string(10, 'o'));
    state.open = {.tokens = 4, .text_bytes = 9, .text_hash = ~uint64_t{0}};
    journal.commit(state);
  }
  const PackJournal again(folder.path(), "signature", 99, 2);
  EXPECT_EQ(again.state().tokens, 6);
  EXPECT_EQ(again.state().open.tokens, 4);
  EXPECT_EQ(again.state().open.text_bytes, 9);
  EXPECT_EQ(again.state().open.text_hash, ~uint64_t{0});
  EXPECT_EQ(std::filesystem::file_size(folder / "tokens.raw"), 2u * (6 + 4));
}

TEST(PackJournal, BeginsAnewOnRequest) {
  ScratchFolder folder;
  write_two_commits(folder.path());
  const PackJournal anew(folder.path(), "other", 99, 2, true);
  EXPECT_EQ(anew.state().documents, 0);
  EXPECT_EQ(anew.state().created, 99);
  EXPECT_EQ(std::filesystem::file_size(folder / "tokens.raw"), 0u);
}

TEST(PackJournal, Refuses) {
  ScratchFolder folder;
  write_two_commits(folder.path());
  expect_error(ExitCode::data, {"was started with signature", "other", "--restart"},
               [&] { PackJournal(folder.path(), "other", 1, 2); });
  {
    const PackJournal open(folder.path(), "signature", 1, 2);
    expect_error(ExitCode::data, {"another process"},
                 [&] { PackJournal(folder.path(), "signature", 1, 2); });
    // Beginning anew takes nothing from a process that is at work either.
    expect_error(ExitCode::data, {"another process"},
                 [&] { PackJournal(folder.path(), "other", 1, 2, true); });
  }
  EXPECT_EQ(PackJournal(folder.path(), "signature", 1, 2).state().documents, 2);
  write_file(folder / "tokens.raw", "tt");
  expect_error(ExitCode::data, {"raw files are shorter", "--restart"},
               [&] { PackJournal(folder.path(), "signature", 1, 2); });
}

}  // namespace
}  // namespace shoestring

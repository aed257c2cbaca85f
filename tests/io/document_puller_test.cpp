#include "io/document_puller.h"

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(DocumentPuller, GivesDocumentsOneByOne) {
  ScratchFolder folder;
  std::string lines;
  for (int i = 0; i < 30000; ++i) append(lines, "line ", i, "\n");
  write_file(folder / "a.txt", lines);
  TextOptions options;
  options.split = DocumentSplit::lines;
  const auto inputs = list_inputs({folder / "a.txt"}, TextFormat::by_name, nullptr);
  DocumentPuller puller(inputs, options);
  std::string document;
  for (int i = 0; i < 30000; ++i) {
    ASSERT_TRUE(puller.next(document));
    ASSERT_EQ(document, cat("line ", i));
  }
  EXPECT_FALSE(puller.next(document));
  EXPECT_FALSE(puller.next(document));
}

TEST(DocumentPuller, StopsEarlyAndReportsErrors) {
  ScratchFolder folder;
  write_file(folder / "a.txt", std::string(1 << 20, 'x'));
  write_file(folder / "b.txt", "bad \xff");
  TextOptions options;
  options.piece_bytes = 1000;
  std::string document;
  {
    DocumentPuller puller(list_inputs({folder / "a.txt"}, TextFormat::by_name, nullptr), options);
    EXPECT_TRUE(puller.next(document));
  }
  DocumentPuller puller(list_inputs({folder / "b.txt"}, TextFormat::by_name, nullptr), options);
  expect_error(ExitCode::data, {"b.txt: bad UTF-8 at byte 4"}, [&] { puller.next(document); });
}

}  // namespace
}  // namespace shoestring

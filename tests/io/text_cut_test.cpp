#include "io/text_cut.h"

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

struct Cut {
  std::vector<std::string> documents;
  int64_t empty = 0, pieces = 0, cut = 0;
};

Cut cut_text(const std::string& text, DocumentSplit split, size_t step, size_t piece = 1000,
             const std::string& separator = "<end>") {
  Cut out;
  std::string open;
  DocumentBuilder builder(piece, [&](TextPiece&& p) {
    EXPECT_LE(p.text.size(), piece);
    open += p.text;
    ++out.pieces;
    if (p.last) out.documents.push_back(std::exchange(open, {}));
  });
  TextCutter cutter(split, separator, builder);
  for (size_t i = 0; i < text.size(); i += step) cutter.feed(text.substr(i, step));
  cutter.finish();
  out.empty = builder.empty();
  out.cut = builder.cut();
  EXPECT_EQ(static_cast<int64_t>(out.documents.size()), builder.documents());
  return out;
}

void expect_documents(const std::string& text, DocumentSplit split,
                      const std::vector<std::string>& documents, int64_t empty) {
  for (size_t step : {1, 2, 3, 7, 1000}) {
    const Cut cut = cut_text(text, split, step);
    EXPECT_EQ(cut.documents, documents) << "step " << step;
    EXPECT_EQ(cut.empty, empty) << "step " << step;
  }
}

TEST(TextCut, SplitsText) {
  expect_documents("a\n\nb\n", DocumentSplit::file, {"a\n\nb\n"}, 0);
  expect_documents(" \n\t", DocumentSplit::file, {}, 1);
  expect_documents("", DocumentSplit::file, {}, 1);
  expect_documents("a b\nc\r\n\n  \nd", DocumentSplit::lines, {"a b", "c", "d"}, 2);
  expect_documents("a\n", DocumentSplit::lines, {"a"}, 0);
  expect_documents("\n\na\nb\n\n \t\n\nc\r\n\r\nd\n", DocumentSplit::blank_lines,
                   {"a\nb", "c", "d"}, 0);
  expect_documents("  a\n  b", DocumentSplit::blank_lines, {"  a\n  b"}, 0);
  expect_documents("one<end>two <e<end><end>three", DocumentSplit::separator,
                   {"one", "two <e", "three"}, 1);
}

TEST(TextCut, CutsBetweenWords) {
  std::string text;
  for (int i = 0; i < 50; ++i) append(text, "word", i, i % 9 == 0 ? ".\n\n" : " ");
  for (size_t step : {1, 10, 1000}) {
    std::vector<std::string> pieces;
    DocumentBuilder builder(64, [&](TextPiece&& p) { pieces.push_back(p.text); });
    for (size_t i = 0; i < text.size(); i += step) builder.append(text.substr(i, step));
    builder.end();
    std::string joined;
    for (size_t i = 0; i < pieces.size(); ++i) {
      joined += pieces[i];
      if (i > 0) {
        EXPECT_EQ(pieces[i].substr(0, 5), " word");
      }
      EXPECT_LE(pieces[i].size(), 64u);
    }
    EXPECT_EQ(joined, text);
    EXPECT_EQ(builder.cut(), 1);
    EXPECT_EQ(builder.documents(), 1);
  }
}

TEST(TextCut, NeverCutsACharacter) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += i % 3 == 0 ? "\xf0\x9f\x98\x80" : "\xe2\x82\xac";
  std::string joined;
  DocumentBuilder builder(65, [&](TextPiece&& p) {
    EXPECT_NE(static_cast<uint8_t>(p.text[0]) & 0xc0, 0x80);
    joined += p.text;
  });
  builder.append(text);
  builder.end();
  EXPECT_EQ(joined, text);
  // Bytes that are no text at all still pass, in full pieces.
  const Cut cut = cut_text(std::string(1000, '\x80'), DocumentSplit::file, 100, 64);
  EXPECT_EQ(cut.documents, std::vector<std::string>{std::string(1000, '\x80')});
  EXPECT_EQ(cut.pieces, 16);
}

TEST(TextCut, WritesCodePoints) {
  std::string text;
  DocumentBuilder builder(100, [&](TextPiece&& p) { text = p.text; });
  for (uint32_t c : {0x41u, 0xe4u, 0x20acu, 0x1f600u}) builder.append_code_point(c);
  builder.end();
  EXPECT_EQ(text, "A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
}

}  // namespace
}  // namespace shoestring

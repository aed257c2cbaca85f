#pragma once
// Cuts checked text into documents, and documents that are too large for memory into pieces.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace shoestring {

// One document, or a part of one: the parts come in order, only the last has `last`.
struct TextPiece {
  std::string text;
  bool last = true;
};
using PieceSink = std::function<void(TextPiece&&)>;

// Collects the text of the current document and hands it on.
class DocumentBuilder {
 public:
  // A document is handed on in pieces of at most `piece_bytes`, cut in the second half of a piece
  // before a single blank between two words (where every pre-tokenizer cuts too, so that the token
  // ids are the same as of the whole), else before any white space, else between characters.
  DocumentBuilder(size_t piece_bytes, PieceSink sink)
      : piece_bytes_(piece_bytes), sink_(std::move(sink)) {}
  void append(std::string_view text);
  void append_code_point(uint32_t code_point);
  // Removes this ending of the text so far, if it has it and it is not handed on yet.
  void strip_ending(std::string_view ending);
  // Ends the document. Nothing but white space is no document: it is counted and dropped.
  void end();

  int64_t documents() const { return documents_; }
  int64_t empty() const { return empty_; }
  int64_t cut() const { return cut_; }  // documents that were handed on in several pieces

 private:
  void hand_on_piece();
  size_t piece_bytes_;
  PieceSink sink_;
  std::string text_;
  bool only_space_ = true, in_pieces_ = false;
  int64_t documents_ = 0, empty_ = 0, cut_ = 0;
};

enum class DocumentSplit { file, lines, blank_lines, separator };

// Plain text to documents: the whole file, one a line, one a paragraph, or between separators.
class TextCutter {
 public:
  TextCutter(DocumentSplit split, std::string separator, DocumentBuilder& to)
      : split_(split), separator_(std::move(separator)), to_(to) {}
  void feed(std::string_view text);
  void finish();

 private:
  void feed_lines(std::string_view text);
  void feed_paragraphs(std::string_view text);
  void feed_separated(std::string_view text);

  DocumentSplit split_;
  std::string separator_;
  DocumentBuilder& to_;
  bool blank_line_ = true;  // nothing but blanks since the last line end
  bool paragraph_ = false;  // text has been appended since the last document
  std::string held_;        // separator: the tail that may be the start of one; else blanks
};

}  // namespace shoestring

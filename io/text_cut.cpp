#include "io/text_cut.h"

#include <algorithm>

namespace shoestring {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool continues_character(char c) { return (static_cast<uint8_t>(c) & 0xc0) == 0x80; }

bool all_space(std::string_view text) { return std::all_of(text.begin(), text.end(), is_space); }

// Where to cut a text of limit + 1 bytes or more: see DocumentBuilder.
size_t cut_position(const std::string& text, size_t limit) {
  size_t before_space = 0;
  for (size_t i = limit - 1; i > limit / 2; --i) {
    if (!is_space(text[i])) continue;
    if (text[i] == ' ' && !is_space(text[i - 1]) && !is_space(text[i + 1])) return i;
    before_space = std::max(before_space, i);
  }
  if (before_space > 0) return before_space;
  size_t i = limit;
  while (i > limit - 4 && continues_character(text[i])) --i;
  return continues_character(text[i]) ? limit : i;
}

}  // namespace

void DocumentBuilder::append(std::string_view text) {
  while (!text.empty()) {
    // One character more than a piece, to see whether the cut is between two characters.
    const size_t room = piece_bytes_ + 1 - text_.size();
    const std::string_view part = text.substr(0, room);
    only_space_ = only_space_ && all_space(part);
    text_ += part;
    text.remove_prefix(part.size());
    if (text_.size() > piece_bytes_) hand_on_piece();
  }
}

void DocumentBuilder::append_code_point(uint32_t c) {
  const auto byte = [](uint32_t x) { return static_cast<char>(x); };
  std::string out;
  if (c < 0x80) {
    out = {byte(c)};
  } else if (c < 0x800) {
    out = {byte(0xc0 | c >> 6), byte(0x80 | (c & 63))};
  } else if (c < 0x10000) {
    out = {byte(0xe0 | c >> 12), byte(0x80 | (c >> 6 & 63)), byte(0x80 | (c & 63))};
  } else {
    out = {byte(0xf0 | c >> 18), byte(0x80 | (c >> 12 & 63)), byte(0x80 | (c >> 6 & 63)),
           byte(0x80 | (c & 63))};
  }
  append(out);
}

void DocumentBuilder::hand_on_piece() {
  const size_t at = cut_position(text_, piece_bytes_);
  std::string rest = text_.substr(at);
  text_.resize(at);
  if (!in_pieces_) ++cut_;
  in_pieces_ = true;
  sink_({.text = std::move(text_), .last = false});
  text_ = std::move(rest);
}

void DocumentBuilder::strip_ending(std::string_view ending) {
  if (text_.ends_with(ending)) text_.resize(text_.size() - ending.size());
}

void DocumentBuilder::end() {
  if (only_space_ && !in_pieces_) {
    ++empty_;
  } else {
    ++documents_;
    sink_({.text = std::move(text_), .last = true});
  }
  text_.clear();
  only_space_ = true;
  in_pieces_ = false;
}

void TextCutter::feed(std::string_view text) {
  switch (split_) {
    case DocumentSplit::file:
      return to_.append(text);
    case DocumentSplit::lines:
      return feed_lines(text);
    case DocumentSplit::blank_lines:
      return feed_paragraphs(text);
    case DocumentSplit::separator:
      return feed_separated(text);
  }
}

void TextCutter::finish() {
  to_.append(held_);
  held_.clear();
  const bool open = split_ == DocumentSplit::lines         ? !blank_line_
                    : split_ == DocumentSplit::blank_lines ? paragraph_
                                                           : true;
  if (split_ == DocumentSplit::blank_lines || split_ == DocumentSplit::lines) {
    to_.strip_ending("\n");
    to_.strip_ending("\r");
  }
  if (open) to_.end();
}

void TextCutter::feed_lines(std::string_view text) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    to_.append(text.substr(0, end));
    if (end == std::string_view::npos) {
      blank_line_ = false;  // a line without an end
      return;
    }
    to_.strip_ending("\r");
    to_.end();
    blank_line_ = true;
    text.remove_prefix(end + 1);
  }
}

void TextCutter::feed_paragraphs(std::string_view text) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const bool whole = end != std::string_view::npos;
    const std::string_view line = text.substr(0, whole ? end + 1 : text.size());
    text.remove_prefix(line.size());
    if (blank_line_ && all_space(line)) {
      if (!whole) {
        held_ += line;  // blanks that may yet be followed by words
        if (held_.size() < 65536) return;
        blank_line_ = false;  // too many to be a blank line that anyone meant
        paragraph_ = true;
        to_.append(held_);
        held_.clear();
        return;
      }
      held_.clear();
      if (!paragraph_) continue;
      to_.strip_ending("\n");
      to_.strip_ending("\r");
      to_.end();
      paragraph_ = false;
      continue;
    }
    to_.append(held_);
    held_.clear();
    to_.append(line);
    paragraph_ = true;
    blank_line_ = whole;
  }
}

void TextCutter::feed_separated(std::string_view text) {
  held_ += text;
  std::string_view rest = held_;
  for (size_t at = 0; (at = rest.find(separator_)) != std::string_view::npos;) {
    to_.append(rest.substr(0, at));
    to_.end();
    rest.remove_prefix(at + separator_.size());
  }
  const size_t keep = std::min(rest.size(), separator_.size() - 1);
  to_.append(rest.substr(0, rest.size() - keep));
  held_ = std::string(rest.substr(rest.size() - keep));
}

}  // namespace shoestring

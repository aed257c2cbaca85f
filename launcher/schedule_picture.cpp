#include "launcher/schedule_picture.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/text.h"
#include "launcher/progress.h"

namespace shoestring {
namespace {

constexpr double left = 64, row_height = 26, row_gap = 4, most_width = 1600;
constexpr double legend_top = 24, legend_row = 16, letter = 5.5;  // of a text of size 10, about
constexpr const char* idle_colour = "#f2f2f2";

struct Colours {
  const char *first, *other;
};
// F, B, I and W: of a rank's first stage and of its others.
constexpr std::array<Colours, 4> colours = {{{"#3b73af", "#8fb4dc"},
                                             {"#3a8f5c", "#93cfac"},
                                             {"#2f8f8a", "#8ed0cc"},
                                             {"#c08a2a", "#ecc987"}}};
constexpr std::array<const char*, 4> meanings = {"forward", "backward", "backward for inputs",
                                                 "backward for weights"};

std::string number(double x) { return text_of_fixed(x, 2); }

std::string box(double x, double y, double width, double height, const char* fill) {
  return cat("<rect x=\"", number(x), "\" y=\"", number(y), "\" width=\"", number(width),
             "\" height=\"", number(height), "\" fill=\"", fill,
             "\" stroke=\"white\" stroke-width=\"0.5\"/>\n");
}

std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c == '&') {
      safe += "&amp;";
    } else if (c == '<') {
      safe += "&lt;";
    } else {
      safe += c;
    }
  }
  return safe;
}

// What a colour, a form or a letter of the picture means.
struct LegendEntry {
  const char* fill = nullptr;  // null: only text
  bool strip = false;
  std::string text = {};
  double width() const {
    return (fill == nullptr ? 0 : 14) + letter * static_cast<double>(text.size()) + 16;
  }
};

class Picture {
 public:
  Picture(const Schedule& schedule, const Simulation& simulation)
      : schedule_(schedule), simulation_(simulation) {
    double least = simulation.makespan;
    for (const SimulatedRank& rank : simulation.ranks) {
      first_ = std::min(first_, rank.first_start);
      for (size_t k = 0; k < rank.start.size(); ++k) {
        if (rank.end[k] > rank.start[k]) least = std::min(least, rank.end[k] - rank.start[k]);
      }
    }
    const double wide = least > 0 ? 14 / least : 1;  // the shortest box can carry its number
    scale_ = std::min(wide, most_width / std::max(simulation.makespan, 1e-12));
    width_ = std::max(left + simulation.makespan * scale_ + 16, 560.0);
  }

  std::string text() {
    const std::string legend = title() + legend_text();  // how high it is, places the rows
    const auto ranks = static_cast<double>(schedule_.ranks.size());
    const double height = top_ + ranks * (row_height + row_gap) + 12;
    std::string svg =
        cat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", number(width_), " ",
            number(height), "\" font-family=\"sans-serif\" font-size=\"10\">\n",
            "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n", legend);
    for (size_t r = 0; r < schedule_.ranks.size(); ++r) append(svg, row(r));
    return svg + "</svg>\n";
  }

 private:
  std::string title() const {
    return cat("<text x=\"8\" y=\"16\" font-size=\"13\">", escaped(schedule_.name), ": makespan ",
               number(simulation_.makespan), "</text>\n");
  }

  // Only of what the picture has.
  std::vector<LegendEntry> legend() const {
    std::array<std::array<bool, 2>, 4> seen = {};
    const char* rows = nullptr;
    bool pairs = false, numbers = false, idle = false;
    for (size_t r = 0; r < schedule_.ranks.size(); ++r) {
      const SimulatedRank& times = simulation_.ranks[r];
      idle = idle || times.bubble + times.exposed > 1e-9 * simulation_.makespan;
      for (size_t k = 0; k < schedule_.ranks[r].size(); ++k) {
        const Instruction& i = schedule_.ranks[r][k];
        if (!is_compute(i.what)) continue;
        seen[static_cast<size_t>(i.what)][is_first(r, i) ? 0 : 1] = true;
        if (i.travels && rows == nullptr) rows = colour_of(r, i);
        idle = idle || !i.whole();  // below what computes
        pairs = pairs || i.with_next;
        numbers = numbers || has_label(r, k);
      }
    }
    std::vector<LegendEntry> entries;
    const auto add = [&entries](const char* fill, std::string text, bool strip = false) {
      LegendEntry& entry = entries.emplace_back();
      entry.fill = fill;
      entry.text = std::move(text);
      entry.strip = strip;
    };
    for (size_t op = 0; op < seen.size(); ++op) {
      if (seen[op][0]) add(colours[op].first, meanings[op]);
      if (seen[op][1]) add(colours[op].other, cat(meanings[op], ", another stage"));
    }
    if (rows != nullptr) add(rows, "rows travel between ranks", true);
    if (idle) add(idle_colour, "idle");
    if (pairs) add(nullptr, "one above the other: interleaved");
    if (numbers) add(nullptr, "number: micro-batch");
    return entries;
  }

  std::string legend_text() {
    double x = 8, y = legend_top;
    std::string text;
    for (const LegendEntry& entry : legend()) {
      if (x > 8 && x + entry.width() > width_) x = 8, y += legend_row;
      if (entry.fill != nullptr) {
        append(text,
               entry.strip ? box(x, y + 7, 10, 3, entry.fill) : box(x, y, 10, 10, entry.fill));
      }
      append(text, "<text x=\"", number(x + (entry.fill == nullptr ? 0 : 14)), "\" y=\"",
             number(y + 9), "\">", entry.text, "</text>\n");
      x += entry.width();
    }
    top_ = y + 20;
    return text;
  }

  std::string row(size_t r) const {
    const double y = top_ + static_cast<double>(r) * (row_height + row_gap);
    std::string text =
        cat("<text x=\"8\" y=\"", number(y + row_height / 2 + 4), "\">rank ", r, "</text>\n",
            box(left, y, simulation_.makespan * scale_, row_height, idle_colour));
    const Program& program = schedule_.ranks[r];
    for (size_t k = 0; k < program.size(); ++k) {
      if (!is_compute(program[k].what)) continue;
      const bool upper = program[k].with_next, lower = k > 0 && program[k - 1].with_next;
      if (program[k].travels) {  // beside what computes: a strip at the bottom
        append(text, one(r, k, y + row_height * 0.8, row_height * 0.2));
        continue;
      }
      const double full = program[k].whole() ? row_height : row_height * 0.8;
      const double height = upper || lower ? row_height / 2 : full;
      append(text, one(r, k, lower ? y + row_height / 2 : y, height));
    }
    return text;
  }

  bool is_first(size_t r, const Instruction& i) const {
    return i.stage == schedule_.where.stage_of(static_cast<int>(r), 0);
  }
  const char* colour_of(size_t r, const Instruction& i) const {
    const Colours& colour = colours[static_cast<size_t>(i.what)];
    return is_first(r, i) ? colour.first : colour.other;
  }
  double width_of(size_t r, size_t k) const {
    return (simulation_.ranks[r].end[k] - simulation_.ranks[r].start[k]) * scale_;
  }
  bool has_label(size_t r, size_t k) const {
    const Instruction& i = schedule_.ranks[r][k];
    return !i.travels && width_of(r, k) >= 6.5 * static_cast<double>(cat(i.micro).size());
  }

  std::string one(size_t r, size_t k, double y, double height) const {
    const Instruction& i = schedule_.ranks[r][k];
    const double x = left + (simulation_.ranks[r].start[k] - first_) * scale_;
    const double width = width_of(r, k);
    std::string text = box(x, y, width, height, colour_of(r, i));
    if (!has_label(r, k)) return text;
    append(text, "<text x=\"", number(x + width / 2), "\" y=\"", number(y + height / 2 + 3.5),
           "\" text-anchor=\"middle\" fill=\"", is_first(r, i) ? "white" : "black", "\">", i.micro,
           "</text>\n");
    return text;
  }

  const Schedule& schedule_;
  const Simulation& simulation_;
  double first_ = 0, scale_ = 1, width_ = 0, top_ = 0;
};

}  // namespace

void require_replaceable(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return;
  std::string start(1024, '\0');
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(file.gcount()));
  if (start.empty() || start.find("<svg") != std::string::npos) return;
  fail_usage(cat(path, " exists and is no SVG picture; name another file, or remove that one"));
}

std::string schedule_svg(const Schedule& schedule, const Simulation& simulation) {
  return Picture(schedule, simulation).text();
}

}  // namespace shoestring

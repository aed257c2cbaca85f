#include "launcher/schedule_picture.h"

#include <algorithm>
#include <array>

#include "core/text.h"
#include "launcher/progress.h"

namespace shoestring {
namespace {

constexpr double left = 64, top = 44, row_height = 26, row_gap = 4, most_width = 1600;

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
  }

  std::string text() const {
    const auto ranks = static_cast<double>(schedule_.ranks.size());
    const double width = left + simulation_.makespan * scale_ + 16;
    const double height = top + ranks * (row_height + row_gap) + 12;
    std::string svg = cat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ",
                          number(std::max(width, 560.0)), " ", number(height),
                          "\" font-family=\"sans-serif\" font-size=\"10\">\n",
                          "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n", title());
    for (size_t r = 0; r < schedule_.ranks.size(); ++r) append(svg, row(r));
    return svg + "</svg>\n";
  }

 private:
  std::string title() const {
    std::string text = cat("<text x=\"8\" y=\"16\" font-size=\"13\">", schedule_.name,
                           ": makespan ", number(simulation_.makespan), "</text>\n");
    double x = 8;
    for (size_t k = 0; k < colours.size(); ++k) {
      append(text, box(x, 24, 10, 10, colours[k].first), "<text x=\"", number(x + 14),
             "\" y=\"33\">", meanings[k], "</text>\n");
      x += 130;
    }
    return text;
  }
  std::string row(size_t r) const {
    const double y = top + static_cast<double>(r) * (row_height + row_gap);
    std::string text =
        cat("<text x=\"8\" y=\"", number(y + row_height / 2 + 4), "\">rank ", r, "</text>\n",
            box(left, y, simulation_.makespan * scale_, row_height, "#f2f2f2"));
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
  std::string one(size_t r, size_t k, double y, double height) const {
    const SimulatedRank& rank = simulation_.ranks[r];
    const Instruction& i = schedule_.ranks[r][k];
    const double x = left + (rank.start[k] - first_) * scale_;
    const double width = (rank.end[k] - rank.start[k]) * scale_;
    const bool first = i.stage == schedule_.where.stage_of(static_cast<int>(r), 0);
    const Colours& colour = colours[static_cast<size_t>(i.what)];
    std::string text = box(x, y, width, height, first ? colour.first : colour.other);
    const std::string label = cat(i.micro);
    if (i.travels || width < 6.5 * static_cast<double>(label.size())) return text;
    append(text, "<text x=\"", number(x + width / 2), "\" y=\"", number(y + height / 2 + 3.5),
           "\" text-anchor=\"middle\" fill=\"", first ? "white" : "black", "\">", label,
           "</text>\n");
    return text;
  }

  const Schedule& schedule_;
  const Simulation& simulation_;
  double first_ = 0, scale_ = 1;
};

}  // namespace

std::string schedule_svg(const Schedule& schedule, const Simulation& simulation) {
  return Picture(schedule, simulation).text();
}

}  // namespace shoestring

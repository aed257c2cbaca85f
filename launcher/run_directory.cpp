#include "launcher/run_directory.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/check.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "io/hugging_face/folder.h"

namespace shoestring {

void RunDirectory::require_no_model() const {
  std::error_code error;
  std::string_view what;
  if (HuggingFaceFolder::is_at(path_)) what = "a Hugging Face folder (it has a config.json)";
  if (std::filesystem::exists(path_ + "/manifest.json", error)) {
    what = "one checkpoint (it has a manifest.json)";
  }
  if (what.empty()) return;
  fail_usage(
      cat("run.directory = ", path_, " is ", what,
          "; commands that are given that path would read those weights and not the run's: ",
          "set run.directory to a folder of the run's own; to begin with these weights, set ",
          "train.init_from = \"", path_, "\" beside it"));
}

void RunDirectory::create() const {
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error) fail_usage(cat("run.directory = ", path_, " cannot be made: ", error.message()));
}

void RunDirectory::write_text(std::string_view name, std::string_view text) const {
  write_file_durably(cat(path_, "/", name), text);
}

std::optional<std::string> RunDirectory::read_text(std::string_view name) const {
  std::ifstream in(cat(path_, "/", name), std::ios::binary);
  if (!in) return std::nullopt;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace shoestring

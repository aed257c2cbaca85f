#include "core/check.h"

#include "core/text.h"

namespace shoestring {
namespace {

std::string relative_position(const std::source_location& where) {
  if (where.line() == 0) return "";
  std::string_view file = where.file_name();
  // The tree's own folders are the only ones an error can come from; tests mirror the others.
  for (std::string_view folder :
       {"/tests/", "/core/", "/parallel/", "/optim/", "/io/", "/launcher/"}) {
    if (size_t at = file.rfind(folder); at != std::string_view::npos) {
      file = file.substr(at + 1);
      break;
    }
  }
  return cat(file, ":", where.line());
}

}  // namespace

Error::Error(std::string message, ExitCode code, std::source_location where)
    : std::runtime_error(std::move(message)), code_(code), where_(relative_position(where)) {}

void fail(std::string message, std::source_location where) {
  throw Error(std::move(message), ExitCode::fault, where);
}
void fail_usage(std::string message, std::source_location where) {
  throw Error(std::move(message), ExitCode::usage, where);
}
void fail_data(std::string message, std::source_location where) {
  throw Error(std::move(message), ExitCode::data, where);
}

}  // namespace shoestring

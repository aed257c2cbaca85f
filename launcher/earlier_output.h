#pragma once
// What `import` and `export` may replace: folders that they wrote themselves and that nothing was
// added to or changed in since.

#include <string>

namespace shoestring {

// Why the folder is not as the command left it, half a sentence that follows its name: "holds
// notes.txt, which export does not write"; empty when it is. Told by names, by what only the
// command writes, and by times: no file is younger than the one that is written last.
std::string why_no_export(const std::string& folder);
std::string why_no_import(const std::string& folder);

}  // namespace shoestring

#pragma once
// `shoestring import`: a Hugging Face folder becomes the first checkpoint of a run.

#include <span>
#include <string>
#include <vector>

#include "launcher/model_source.h"

namespace shoestring {

struct ImportOptions {
  std::string folder, out;
  bool force = false;  // replaces an earlier import at `out`
};

// Makes out/checkpoints/step_00000000, out/config.toml and copies of the tokenizer's files. One
// piece of one tensor is in memory at a time; bf16 stays bf16, all else becomes f32.
void run_import(const ImportOptions& options);

// The checkpoint alone, below `directory`, of these of the source's parameters.
void save_imported(const ModelSource& source, const std::vector<ParamInfo>& parameters,
                   const RunConfig& config, const std::string& directory);

// What copy_tokenizer_files() copies.
std::span<const char* const> tokenizer_file_names();
// Copies the files of a tokenizer and of generation that are in `from`.
void copy_tokenizer_files(const std::string& from, const std::string& to);

}  // namespace shoestring

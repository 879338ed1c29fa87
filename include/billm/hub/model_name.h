// From what the user calls a model (a directory, an alias, a hub id) to its directory on this
// machine.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "billm/hub/model_files.h"

namespace billm {

// A row of configs/models.json, which is part of the program.
struct ModelAlias {
  std::string alias;
  std::string repository;  // hub id "org/name"; empty if `directory` is set
  std::string revision;    // branch, tag or commit; "main" if the row names none
  std::string directory;   // instead: a path below billm_home()
  std::string notes;
};

const std::vector<ModelAlias>& model_aliases();  // sorted by alias

// `name` is, in this order: a directory, used as it is; an alias; a hub id org/name or
// org/name@revision. Aliases and ids are looked up in the HuggingFace cache (hub_environment.h);
// what is not there of `part` is downloaded, which is said on stderr unless quiet. Throws
// Error{kBadInput} for a name that stands for nothing or that the user may not read,
// Error{kFailure} for the troubles of network and disk, each with a hint what to do.
std::filesystem::path resolve_model(const std::string& name, ModelPart part = ModelPart::kAll,
                                    bool quiet = true);

// What a person would call the model that `name` stands for and that lies in `directory` (which is
// named by a commit if it is in the cache): for the names of results.
std::string model_label(const std::string& name, const std::filesystem::path& directory);

}  // namespace billm

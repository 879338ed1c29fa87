// From what the user calls a model (a directory, an alias, a hub id) to its directory on this
// machine. Nothing is downloaded.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

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
// org/name@revision. Aliases and ids are looked up in the HuggingFace cache: $HF_HUB_CACHE, else
// $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
// Throws Error{kBadInput} if nothing is found, with where it looked and a hint what to do.
std::filesystem::path resolve_model(const std::string& name);

}  // namespace billm

// A model from the hub into the cache.
#pragma once

#include <filesystem>

#include "billm/hub/hub_cache.h"
#include "billm/hub/hub_environment.h"
#include "billm/hub/model_files.h"

namespace billm {

// Its snapshot in the cache with everything that `part` needs: what is not there yet is loaded.
// With a revision that was looked up before, or a commit, the server is not asked for anything that
// is there. Throws Error as download.h says.
std::filesystem::path model_snapshot(const HubEnvironment& environment,
                                     const CachedRepository& cached, const std::string& revision,
                                     ModelPart part, bool quiet);

}  // namespace billm

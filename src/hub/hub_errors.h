// A hub's refusals as errors: one line that says what was refused and what the user can do about
// it.
#pragma once

#include <string>

#include "billm/base/error.h"
#include "billm/hub/hub_cache.h"
#include "billm/hub/hub_environment.h"
#include "http.h"

namespace billm {

// What was asked for.
struct HubQuestion {
  Repository repository;
  std::string revision;
  std::string file;  // empty: the repository's list of files
};

// "org/name@revision: file" of a question, the revision only if it is no "main".
std::string question_text(const HubQuestion& question);

// The error for a reply that is not ok(): kBadInput for a name that does not exist or that the user
// may not read, kFailure for the network's and the server's troubles.
Error refused(const HubQuestion& question, const HttpReply& reply,
              const HubEnvironment& environment);

// Without the network (HF_HUB_OFFLINE) and not, or not whole, in the cache: `missing` says what.
Error not_cached(const HubQuestion& question, const std::string& missing,
                 const std::filesystem::path& place);

}  // namespace billm

// Files of one repository from the hub into the cache: described by a HEAD each, loaded in
// parallel, resumed where a cut download stopped, checked by size and hash before they get their
// name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "billm/hub/hub_answers.h"
#include "billm/hub/hub_cache.h"
#include "http.h"
#include "hub_errors.h"

namespace billm {

// A file as the hub describes it.
struct RemoteFile {
  std::string path, commit;
  std::string etag;  // parse_etag: the blob's name and hash
  int64_t size = 0;
};

// The repository's files at a revision. Throws as refused() says.
RepositoryListing list_repository(HttpClient& http, const HubQuestion& question);

// One file at a revision. Throws as refused() says, and Error{kFailure} if what is needed to check
// the file is missing from the answer.
RemoteFile describe_file(HttpClient& http, const HubQuestion& question);

// Loads `files`, all of one commit, and links them into its snapshot. Blobs that are in the cache
// are not loaded again. Says what it loads and how far it is on stderr, unless quiet. Whatever goes
// wrong, what is loaded is kept beside the blobs and used by the next run. Throws Error: no space
// (before anything is loaded), the network, a server that sends other bytes than it said.
void load_files(HttpClient& http, const CachedRepository& cached,
                const std::vector<RemoteFile>& files, bool quiet);

}  // namespace billm

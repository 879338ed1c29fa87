// One blob: see blob_download.cpp.
#pragma once

#include "billm/base/progress.h"
#include "billm/hub/hub_cache.h"
#include "download.h"
#include "http.h"

namespace billm {

// Loads the blob of `file` unless the cache has it. `progress` gets the bytes beyond those of the
// partial blob that were there when it was made. Throws as load_files; any thread.
void load_blob(HttpClient& http, const CachedRepository& cached, const RemoteFile& file,
               ByteProgress& progress, bool quiet);

// Whether the cache has the whole blob.
bool has_blob(const CachedRepository& cached, const RemoteFile& file);
// Bytes of it that an earlier run left.
int64_t partial_bytes(const CachedRepository& cached, const RemoteFile& file);

// {endpoint}/{id}/resolve/{revision}/{file}, with datasets/ before the id of a data set.
std::string file_url(const HttpClient& http, const HubQuestion& question);

}  // namespace billm

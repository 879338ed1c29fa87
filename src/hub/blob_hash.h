// The hash that names a blob of the cache and of the hub: SHA-256 of the content for large files
// (git LFS), else git's own: SHA-1 of "blob <size>\0" and the content.
#pragma once

#include <cstdint>
#include <string>

#include "billm/base/sha256.h"

namespace billm {

// The hash of the kind that `etag` is, 64 hexadecimal digits or 40, ready for the content. `size`:
// bytes of the whole content.
Hash blob_hash(const std::string& etag, int64_t size);

}  // namespace billm

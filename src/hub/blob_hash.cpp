// See blob_hash.h.
#include "blob_hash.h"

namespace billm {

Hash blob_hash(const std::string& etag, int64_t size) {
  if (etag.size() != 40) return Hash(HashKind::kSha256);
  Hash hash(HashKind::kSha1);
  hash.update("blob " + std::to_string(size) + '\0');
  return hash;
}

}  // namespace billm

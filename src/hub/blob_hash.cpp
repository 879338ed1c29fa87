// See blob_hash.h.
#include "blob_hash.h"

#include <openssl/evp.h>

#include <array>

#include "billm/base/error.h"

namespace billm {

struct BlobHash::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

BlobHash::BlobHash(const std::string& etag, int64_t size) : state_(std::make_unique<State>()) {
  const bool git = etag.size() == 40;
  if (EVP_DigestInit_ex(state_->context, git ? EVP_sha1() : EVP_sha256(), nullptr) != 1) {
    throw Error(ErrorCode::kFailure, "libcrypto offers no SHA-1 or SHA-256");
  }
  if (!git) return;
  const std::string header = "blob " + std::to_string(size) + '\0';
  update(std::as_bytes(std::span(header.data(), header.size())));
}

BlobHash::~BlobHash() = default;

void BlobHash::update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}

std::string BlobHash::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_DigestFinal_ex(state_->context, digest.data(), &size);
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += kDigits[digest[i] >> 4];
    text += kDigits[digest[i] & 15];
  }
  return text;
}

}  // namespace billm

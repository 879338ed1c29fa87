// SHA-256 and SHA-1 through OpenSSL's libcrypto.
#include "billm/base/sha256.h"

#include <openssl/evp.h>

#include <array>

#include "billm/base/error.h"
#include "billm/base/file.h"

namespace billm {

struct Hash::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Hash::Hash(HashKind kind) : state_(std::make_unique<State>()) {
  const EVP_MD* type = kind == HashKind::kSha1 ? EVP_sha1() : EVP_sha256();
  if (EVP_DigestInit_ex(state_->context, type, nullptr) != 1) {
    throw Error(ErrorCode::kFailure, "libcrypto offers no SHA-256 or SHA-1");
  }
}

Hash::~Hash() = default;
Hash::Hash(Hash&&) noexcept = default;

void Hash::update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}

void Hash::update(std::string_view text) {
  EVP_DigestUpdate(state_->context, text.data(), text.size());
}

std::string Hash::hex() {
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

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

std::string sha256_hex(std::string_view text) {
  Sha256 hash;
  hash.update(text);
  return hash.hex();
}

std::string sha256_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return sha256_hex(file.bytes());
}

}  // namespace billm

// Whatever a server answers is either understood or Error{kBadInput}, and no file name or hash that
// comes out of it leads out of the cache.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "billm/base/error.h"
#include "billm/hub/hub_answers.h"
#include "billm/hub/hub_cache.h"

namespace {

void require(bool condition) {
  if (!condition) __builtin_trap();
}

// Runs `body`, which may refuse its input.
template <typename Body>
void refusing(Body body) {
  try {
    body();
  } catch (const billm::Error& error) {
    require(error.code() == billm::ErrorCode::kBadInput);
    require(error.message().find('\n') == std::string::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  refusing([&] {
    const billm::RepositoryListing listing = billm::parse_listing(text, "answer");
    require(billm::is_commit(listing.commit));
    for (const billm::ListedFile& file : listing.files) {
      require(billm::is_relative_path(file.path));
      require(file.size.value_or(0) >= 0);
      require(listing.find(file.path) != nullptr);
    }
  });
  refusing([&] {
    for (const std::string& file : billm::parse_index_files(text, "index")) {
      require(billm::is_relative_path(file) && file.find('/') == std::string::npos);
    }
  });
  if (const auto etag = billm::parse_etag(text)) {
    require((etag->size() == 40 || etag->size() == 64) && billm::is_relative_path(*etag));
  }
  if (const auto bytes = billm::parse_size(text)) require(*bytes >= 0);
  if (const auto range = billm::parse_content_range(text)) {
    require(range->first >= 0 && range->first <= range->last && range->last < range->total);
  }
  if (billm::is_revision(text)) require(text.find("..") == std::string_view::npos);
  return 0;
}

// Whatever a server answers is either understood or refused, and no file name or hash that comes
// out of it leads out of the cache.
#include <string>
#include <string_view>

#include "billm/hub/hub_answers.h"
#include "billm/hub/hub_cache.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  const std::string_view text = fuzz::text_of(data, size);
  fuzz::answer([&] {
    const RepositoryListing listing = parse_listing(text, "answer");
    fuzz::require(is_commit(listing.commit));
    for (const ListedFile& file : listing.files) {
      fuzz::require(is_relative_path(file.path));
      fuzz::require(file.size.value_or(0) >= 0);
      fuzz::require(listing.find(file.path) != nullptr);
    }
  });
  fuzz::answer([&] {
    for (const std::string& file : parse_index_files(text, "index")) {
      fuzz::require(is_relative_path(file) && file.find('/') == std::string::npos);
    }
  });
  if (const auto etag = parse_etag(text)) {
    fuzz::require((etag->size() == 40 || etag->size() == 64) && is_relative_path(*etag));
  }
  if (const auto bytes = parse_size(text)) fuzz::require(*bytes >= 0);
  if (const auto range = parse_content_range(text)) {
    fuzz::require(range->first >= 0 && range->first <= range->last && range->last < range->total);
  }
  if (is_revision(text)) fuzz::require(text.find("..") == std::string_view::npos);
  return 0;
}

// XXH3 against the values that xxhsum -H2 of xxHash 0.8.1 prints.
#include "billm/base/xxh3.h"

#include <gtest/gtest.h>

#include <string>

namespace billm {
namespace {

std::string hash_of(std::string_view text) { return xxh3_hex(std::as_bytes(std::span(text))); }

TEST(Xxh3, KnownValues) {
  EXPECT_EQ(hash_of(""), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(hash_of("billm"), "5bb5ae2ee46c10efb1feb172c3d32ec1");
  EXPECT_EQ(hash_of(std::string(1000, 'x')), "50a1af5a5f2dcf01c0a4877b962cba82");
}

TEST(Xxh3, PiecesAreTheWhole) {
  const std::string text(5000, 'b');
  Xxh3 hash;
  for (size_t first = 0; first < text.size(); first += 777) {
    hash.update(std::string_view(text).substr(first, 777));
  }
  EXPECT_EQ(hash.hex(), hash_of(text));
  hash.update("c");
  EXPECT_EQ(hash.hex(), hash_of(text + "c"));
}

}  // namespace
}  // namespace billm

// The packed bytes of every method and setting, pinned: SHA-256 over the description and all
// planes, for the same W and X^T X on every machine. What changes one of them changes what users
// get for the same command, and needs a line in CHANGELOG.md.
//
// BILLM_WRITE_PINNED=FILE writes the digests that this build makes instead of comparing them:
//   export BILLM_WRITE_PINNED=tests/conformance/pinned_bytes.json
//   build/release/conformance --gtest_filter=PinnedBytes.*
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/base/sha256.h"
#include "billm/pack/packed_layer.h"
#include "conformance/method_testing.h"
#include "support/environment.h"

namespace billm::test {
namespace {

std::string digest_of(const PackedLayer& packed) {
  Sha256 hash;
  hash.update(describe(packed));
  for_each_plane(packed, [&](const std::string& name, const Plane& plane) {
    hash.update(name + " " + plane.dtype + ";");
    hash.update(plane.bytes);
  });
  return hash.hex();
}

TEST(PinnedBytes, OfEveryMethodAndSetting) {
  constexpr int64_t kShapes[][2] = {{3, 130}, {65, 200}};
  nlohmann::ordered_json digests;
  for (const auto& [rows, cols] : kShapes) {
    const Layer layer(rows, cols, 8);
    for (const Method& method : methods()) {
      if (!method.same_on_every_cpu) continue;
      for (const Variant& variant : variants(method)) {
        const std::string key = std::string(method.name) + ", " + variant.name + ", " +
                                std::to_string(rows) + " x " + std::to_string(cols);
        digests[key] =
            digest_of(pack(method.quantize(layer.view(), layer.hessian, variant.config, {})));
      }
    }
  }
  if (const char* path = std::getenv("BILLM_WRITE_PINNED")) {
    std::ofstream(path) << dump_json(digests, 1) << "\n";
    GTEST_SKIP() << "wrote " << path;
  }
  const auto pinned =
      parse_json(read_text_file(tests_directory() / "conformance" / "pinned_bytes.json"));
  for (const auto& [key, digest] : digests.items()) {
    ASSERT_TRUE(pinned.contains(key)) << key << ": not pinned; see the top of this file";
    EXPECT_EQ(nlohmann::json(digest), nlohmann::json(pinned.at(key))) << key;
  }
  EXPECT_EQ(digests.size(), pinned.size()) << "a pinned variant is not made any more";
}

}  // namespace
}  // namespace billm::test

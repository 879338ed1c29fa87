// The JSON description of a packed layer in its shard's metadata.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "format/layer_testing.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

using nlohmann::json;

const char* const kGood =
    R"({"layout":"planes","rows":3,"cols":21,"block_size":16,"n":4,"m":8,"classes":3,)"
    R"("salient_classes":2,"scale_format":"log8","offsets":"region"})";

// The message of the error that parsing gives, or "" if there is none.
std::string refusal(const std::string& text) {
  std::string layout;
  LinearShape shape;
  try {
    parse_description(text, "file: module", &layout, &shape);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_EQ(error.message().rfind("file: module", 0), 0u) << error.message();
    EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
    EXPECT_LT(error.message().size(), 400u) << error.message();
    return error.message();
  }
}

void expect_refused(const std::string& key, const json& value) {
  json description = json::parse(kGood);
  description[key] = value;
  EXPECT_NE(refusal(description.dump()), "") << key << " = " << value;
}

TEST(Description, RoundTrip) {
  for (LinearShape shape : shape_sweep(7)) {
    shape.nm = shape.nm.active() ? shape.nm : NmPattern{};
    PackedLinear packed;
    packed.layout = "planes";
    packed.shape = shape;
    std::string layout;
    LinearShape back;
    parse_description(describe(packed), "here", &layout, &back);
    EXPECT_EQ(layout, "planes");
    EXPECT_TRUE(back == shape) << describe(packed);
  }
  EXPECT_EQ(refusal(kGood), "");
}

TEST(Description, EveryFieldIsNeededAndTyped) {
  const json good = json::parse(kGood);
  for (const auto& [key, value] : good.items()) {
    SCOPED_TRACE(key);
    json description = good;
    description.erase(key);
    EXPECT_NE(refusal(description.dump()).find(key), std::string::npos);
    expect_refused(key, nullptr);
    expect_refused(key, true);
    expect_refused(key, json::array({1}));
    expect_refused(key, 1.0);
    if (value.is_string()) {
      expect_refused(key, 1);
      expect_refused(key, "");
      expect_refused(key, "other");
      expect_refused(key, "two\nlines");
      expect_refused(key, std::string(100000, 'x'));
    } else {
      expect_refused(key, "8");
      expect_refused(key, -1);
      expect_refused(key, int64_t{1} << 31);
      expect_refused(key, int64_t{1} << 32 | 3);
      expect_refused(key, std::numeric_limits<uint64_t>::max());
    }
  }
}

TEST(Description, Ranges) {
  for (const char* side : {"rows", "cols"}) {
    expect_refused(side, 0);
    expect_refused(side, (1 << 24) + 1);
  }
  expect_refused("block_size", 0);
  expect_refused("block_size", 12);  // no multiple of 8
  expect_refused("n", 0);
  expect_refused("n", 9);
  expect_refused("m", 0);
  expect_refused("m", 1);
  expect_refused("m", 3);
  expect_refused("m", 17);
  expect_refused("classes", 0);
  expect_refused("classes", 1);  // fewer than salient_classes
  expect_refused("classes", 4);
  expect_refused("salient_classes", 4);
}

TEST(Description, NotAnObject) {
  for (const std::string text : {"", "{", "[]", "7", "null", "\"planes\"", "{}{}"}) {
    EXPECT_NE(refusal(text), "") << text;
  }
  EXPECT_NE(refusal(std::string(kGood) + " x"), "");
  EXPECT_NE(refusal(R"({"rows":3,)" + std::string(kGood + 1)), "");  // a key twice
  EXPECT_NE(refusal(std::string(100000, '[')), "");
}

}  // namespace
}  // namespace billm::test

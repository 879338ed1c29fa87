// The JSON description of a packed layer in its shard's metadata.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "billm/base/json_text.h"
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
  try {
    parse_description(text, "file: module");
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
  json description = parse_json(kGood);
  description[key] = value;
  EXPECT_NE(refusal(dump_json(description)), "") << key << " = " << value;
}

TEST(Description, RoundTrip) {
  std::vector<RegionFormat> shapes = shape_sweep(7);
  for (const RegionFormat& shape : shape_sweep_of_kinds(1)) shapes.push_back(shape);
  for (const RegionFormat& shape : shapes) {
    PackedPlanes packed;
    packed.shape = shape;
    for (const int index_bits : {0, 2, 8}) {
      if (!shape.scattered && index_bits > 0) continue;
      packed.index_bits = index_bits;
      const PackedLayer back = parse_description(describe(packed), "here");
      EXPECT_STREQ(back.layout(), "planes");
      EXPECT_TRUE(planes_of(back).shape == shape) << describe(packed);
      EXPECT_EQ(planes_of(back).index_bits, index_bits);
    }
  }
  EXPECT_EQ(refusal(kGood), "");
}

TEST(Description, EveryFieldIsNeededAndTyped) {
  const json good = parse_json(kGood);
  for (const auto& [key, value] : good.items()) {
    SCOPED_TRACE(key);
    json description = good;
    description.erase(key);
    EXPECT_NE(refusal(dump_json(description)).find(key), std::string::npos);
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

// Keys that came later: absent, they mean what older files mean.
TEST(Description, LaterKeys) {
  const std::string ints =
      R"({"layout":"planes","rows":3,"cols":21,"block_size":16,"n":0,"m":0,"classes":0,)"
      R"("salient_classes":0,"scale_format":"f16","offsets":"none","integer_bits":4)";
  const std::string mixed =
      R"({"layout":"planes","rows":3,"cols":21,"block_size":16,"n":0,"m":0,"classes":1,)"
      R"("salient_classes":0,"scale_format":"log8","offsets":"block","integer_bits":8)";
  const auto with = [](std::string text, const std::string& more) { return text + more + "}"; };
  EXPECT_EQ(refusal(with(ints, "")), "");
  EXPECT_EQ(refusal(with(mixed, R"(,"index":"bitmap")")), "");
  EXPECT_EQ(refusal(with(mixed, R"(,"index":"deltas","index_bits":2)")), "");
  EXPECT_EQ(refusal(with(mixed, R"(,"index":"bitmap","column_scales":true)")), "");
  const auto refused = [&](const std::string& text, const std::string& part) {
    const std::string message = refusal(text);
    EXPECT_NE(message.find(part), std::string::npos) << text << ": " << message;
  };
  refused(with(mixed, ""), "no classes");  // classes where every weight is an integer
  refused(with(ints, R"(,"index":"bitmap")"), "classes in 1..3");
  refused(with(ints, R"(,"column_scales":true)"), "neither");
  refused(with(ints, R"(,"index_bits":4)"), "index_bits");
  refused(with(mixed, R"(,"index":"bitmap","index_bits":4)"), "index_bits");
  refused(with(mixed, R"(,"index":"deltas")"), "index_bits");
  refused(with(mixed, R"(,"index":"lists")"), "lists");
  refused(with(mixed, R"(,"index":"two\nlines")"), "unknown index");
  refused(with(mixed, R"(,"index":3)"), "index");
  for (const char* bits : {"0", "1", "9", "-1", "4.0", "\"4\"", "1000000000000"}) {
    refused(with(mixed, std::string(R"(,"index":"deltas","index_bits":)") + bits), "index_bits");
  }
  json description = parse_json(with(ints, ""));
  for (const json& bits : {json(1), json(9), json(-2), json("4"), json(nullptr), json(true)}) {
    description["integer_bits"] = bits;
    refused(dump_json(description), "integer_bits");
  }
  description["integer_bits"] = 0;
  refused(dump_json(description), "classes in 1..3");
  description["integer_bits"] = 2;
  description["offsets"] = "block";
  refused(dump_json(description), "neither");
  description["offsets"] = "none";
  description["scale_format"] = "log8";
  refused(dump_json(description), "neither");
  description["scale_format"] = "f16";
  description["n"] = description["m"] = 4;
  refused(dump_json(description), "neither");
  description = parse_json(with(mixed, R"(,"index":"bitmap")"));
  description["n"] = description["m"] = 4;
  refused(dump_json(description), "no N:M");
  description["n"] = description["m"] = 0;
  description["salient_classes"] = 2;
  refused(dump_json(description), "salient_classes in 0..1");
  description.erase("integer_bits");
  refused(dump_json(description), "integer_bits");
  description.erase("index");
  EXPECT_EQ(refusal(dump_json(description)), "");  // K = 1, S = 2
  description["column_scales"] = "yes";
  refused(dump_json(description), "column_scales");
  description["column_scales"] = false;
  EXPECT_EQ(refusal(dump_json(description)), "");
}

TEST(Description, UnknownKeys) {
  json description = parse_json(kGood);
  description["seed"] = 1;
  EXPECT_NE(refusal(dump_json(description)).find("unknown key 'seed'"), std::string::npos);
}

TEST(Description, Products) {
  for (const LayerCodes& codes : small_products()) {
    const std::string text = billm::describe(pack(codes));
    SCOPED_TRACE(text);
    const PackedLayer back = parse_description(text, "here");
    EXPECT_STREQ(back.layout(), "product");
    EXPECT_EQ(billm::describe(back), text);
    const json good = parse_json(text);
    const auto refused = [&](const std::function<void(json&)>& change) {
      json bad = good;
      change(bad);
      EXPECT_NE(refusal(dump_json(bad)), "") << dump_json(bad);
    };
    for (const auto& [key, value] : good.items()) {
      refused([&, name = key](json& j) { j.erase(name); });
      refused([&, name = key](json& j) { j[name] = nullptr; });
      refused([&, name = key](json& j) { j[name] = "x"; });
    }
    refused([](json& j) { j["seed"] = 1; });
    refused([](json& j) { j["rows"] = j["rows"].get<int>() + 1; });
    refused([](json& j) { j["cols"] = -1; });
    refused([](json& j) { j["factors"] = json::array(); });
    refused([](json& j) { j["factors"] = json::object(); });
    if (good["factors"].size() == 2) refused([](json& j) { j["factors"].erase(0); });
    refused([](json& j) { j["factors"].push_back(j["factors"][0]); });
    refused([](json& j) { j["factors"][0] = j; });  // products do not hold products
    refused([](json& j) { j["factors"][0] = 7; });
    for (size_t i = 0; i < good["factors"].size(); ++i) {
      for (const auto& [key, value] : good["factors"][i].items()) {
        if (key != "column_scales") {  // absent: none
          refused([&, name = key](json& j) { j["factors"][i].erase(name); });
        }
        refused([&, name = key](json& j) { j["factors"][i][name] = nullptr; });
        refused([&, name = key](json& j) { j["factors"][i][name] = 1.5; });
      }
      refused([&](json& j) { j["factors"][i]["unknown"] = 1; });
      if (good["factors"][i]["layout"] != "rotation") continue;
      refused([&](json& j) { j["factors"][i]["seed"] = uint64_t{1} << 32; });
      refused([&](json& j) { j["factors"][i]["seed"] = uint64_t{1} << 63; });
      refused([&](json& j) { j["factors"][i]["seed"] = -1; });
    }
  }
  // What lies between two factors is bounded before anything is allocated.
  for (const LayerCodes& codes : small_products()) {
    json wide = parse_json(billm::describe(pack(codes)));
    json& factors = wide["factors"];
    if (factors[0]["layout"] != "planes" || factors[1]["layout"] != "planes") continue;
    factors[0]["cols"] = factors[1]["rows"] = 1 << 20;
    EXPECT_NE(refusal(dump_json(wide)).find("factor 1: expected at most"), std::string::npos)
        << refusal(dump_json(wide));
  }
  // A rotation alone is no layer.
  EXPECT_NE(refusal(R"({"layout":"rotation","size":8,"seed":1,"transposed":false})"), "");
  json many = parse_json(R"({"layout":"product","rows":8,"cols":8,"factors":[]})");
  for (int i = 0; i < 9; ++i) {
    many["factors"].push_back(
        {{"layout", "rotation"}, {"size", 8}, {"seed", 1}, {"transposed", false}});
  }
  EXPECT_NE(refusal(dump_json(many)), "");
}

TEST(Description, Trellises) {
  for (const LayerCodes& codes : small_trellises()) {
    const std::string text = billm::describe(pack(codes));
    SCOPED_TRACE(text);
    const PackedLayer back = parse_description(text, "here");
    EXPECT_STREQ(back.layout(), "trellis");
    EXPECT_EQ(format_version(back), 2);
    EXPECT_EQ(billm::describe(back), text);
    EXPECT_TRUE(std::get<PackedTrellis>(back.factors.front()).format ==
                std::get<TrellisCodes>(codes.factors.front()).format);
    const json good = parse_json(text);
    const auto refused = [&](const char* key, const json& value) {
      json bad = good;
      bad[key] = value;
      EXPECT_NE(refusal(dump_json(bad)), "") << dump_json(bad);
    };
    for (const char* key : {"rows", "cols"}) {
      for (const json& value : {json(0), json(-1), json(1.5), json(uint64_t{1} << 63), json("1")}) {
        refused(key, value);
      }
    }
    for (const char* rates : {"[]", "[0]", "[5]", "[4, -1]", "[true]", "[2.0]", "[\"4\"]", "4",
                              "{}", "[1, 1, 1, 1, 1]", "[18446744073709551615]"}) {
      refused("rates", parse_json(rates));
    }
    refused("seed", 1);
    json bad = good;
    bad.erase("rates");
    EXPECT_NE(refusal(dump_json(bad)), "");
  }
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

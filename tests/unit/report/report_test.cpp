// The JSON of reports: what the manifest has held since version 1 stays as it is, products list
// their factors, and what is read again is written again.
#include "billm/report/report.h"

#include <gtest/gtest.h>

#include "billm/base/json_text.h"

namespace billm {
namespace {

using Json = nlohmann::ordered_json;

LayerReport some_layer() {
  RegionFormat shape;
  shape.rows = 2;
  shape.cols = 8;
  shape.block_size = 8;
  shape.nm = {4, 8};
  shape.classes = 1;
  shape.salient_classes = 1;
  RegionCodes codes = make_region_codes(shape);
  codes.salient[3] = 1;
  for (size_t i = 0; i < codes.region.size(); ++i) {
    codes.region[i] = i % 2 == 0 ? kPrunedRegion : i % 8 == 3 ? 2 : 1;
  }
  LayerReport layer = report_codes(codes, 1);
  layer.name = "model.layers.0.mlp.up_proj";
  layer.nominal_bits = 0.55;
  layer.stored_bits = 2.5;
  layer.damping = 0.01;
  layer.error = 0.125;
  return layer;
}

// In the order of the keys, which the manifest's bytes have.
TEST(Report, LayerOfPlanes) {
  EXPECT_EQ(dump_json(Json(some_layer())),
            R"({"name":"model.layers.0.mlp.up_proj","shape":[2,8],"nm":"4:8",)"
            R"("nominal_bits":0.55,"stored_bits":2.5,"salient_share":0.125,)"
            R"("region_shares":[0.5,0.375,0.125],"integer_bits":0,"damping":0.01,"error":0.125})");
}

TEST(Report, Product) {
  LayerReport layer = some_layer();
  layer.nm = "";
  layer.error.reset();
  layer.factors.insert(layer.factors.begin(), {"rotation", 2, 2, {{"seed", 7}}});
  const Json json = layer;
  EXPECT_EQ(dump_json(json.at("factors")),
            R"([{"kind":"rotation","shape":[2,2],"seed":7},)"
            R"({"kind":"planes","shape":[2,8],"salient_share":0.125,)"
            R"("region_shares":[0.5,0.375,0.125],"integer_bits":0}])");
  EXPECT_FALSE(json.contains("salient_share"));
  EXPECT_EQ(json.at("nm"), nullptr);
  EXPECT_EQ(json.at("error"), nullptr);
  EXPECT_EQ(statistic(layer, "salient_share"), 0.125);
  EXPECT_EQ(statistic(layer, "seed"), 7);
  EXPECT_TRUE(statistic(layer, "ranks").is_null());
}

TEST(Report, FactorsOfCodes) {
  RegionFormat shape;
  shape.rows = 4;
  shape.cols = 8;
  shape.block_size = 8;
  LayerCodes codes;
  codes.factors = {Rotation{4, 11, true}, make_region_codes(shape), Rotation{8, 5, false}};
  const LayerReport layer = report_codes(codes, 1);
  EXPECT_EQ(layer.rows, 4);
  EXPECT_EQ(layer.cols, 8);
  EXPECT_EQ(layer.nm, "");
  ASSERT_EQ(layer.factors.size(), 3u);
  EXPECT_EQ(layer.factors[0].kind, "rotation");
  EXPECT_EQ(dump_json(layer.factors[0].statistics), R"({"seed":11,"transposed":true})");
  EXPECT_EQ(layer.factors[1].kind, "planes");
  EXPECT_EQ(layer.factors[2].rows, 8);
  EXPECT_EQ(statistic(layer, "integer_bits"), 0);
}

TEST(Report, WhatIsReadIsWrittenAgain) {
  LayerReport plain = some_layer(), product = some_layer();
  product.factors.push_back({"rotation", 8, 8, {{"z", 1}, {"a", {0.5, 1e-7}}}});
  plain.error = 1.0 / 3;
  for (const LayerReport& layer : {plain, product}) {
    const std::string text = dump_json(Json(layer));
    EXPECT_EQ(dump_json(Json(parse_ordered_json(text).get<LayerReport>())), text);
  }
  const TuneReport tune = {0.1, 0.05, 32, 1.5};
  const std::string text = dump_json(Json(tune));
  EXPECT_EQ(dump_json(Json(parse_ordered_json(text).get<TuneReport>())), text);
}

TEST(Report, LayersOfBeforeIntegers) {
  Json json = some_layer();
  json.erase("integer_bits");
  EXPECT_EQ(statistic(json.get<LayerReport>(), "integer_bits"), 0);
}

TEST(Report, WhatIsMissingIsRefused) {
  for (const char* key :
       {"name", "shape", "nm", "nominal_bits", "stored_bits", "damping", "error"}) {
    Json json = some_layer();
    json.erase(key);
    EXPECT_THROW(json.get<LayerReport>(), Json::exception) << key;
  }
}

TEST(Report, MeanBitsOverTheWeights) {
  LayerReport small = some_layer(), large = some_layer();
  large.rows *= 3;
  large.nominal_bits = 1.55;
  large.stored_bits = 6.5;
  const MeanBits bits = mean_bits({small, large});
  EXPECT_DOUBLE_EQ(bits.nominal, 1.3);
  EXPECT_DOUBLE_EQ(bits.stored, 5.5);
}

TEST(Report, Run) {
  QuantizeReport report;
  report.output = "/results/one";
  report.method = "arb";
  report.layers = {some_layer()};
  const Json json = report;
  EXPECT_EQ(json.at("output"), "/results/one");
  EXPECT_EQ(json.at("hidden_place"), "disk");
  EXPECT_EQ(json.at("layers").size(), 1u);
  EXPECT_FALSE(json.contains("tune"));
}

}  // namespace
}  // namespace billm

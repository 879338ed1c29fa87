// Settings of single layers: what a plan's entries mean, and what a plan's file says.
#include "billm/quantize/layer_plan.h"

#include <gtest/gtest.h>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/quantize/settings.h"

namespace billm {
namespace {

using Json = nlohmann::ordered_json;

const std::vector<std::string> kModules = {"model.layers.0.q", "model.layers.0.down",
                                           "model.layers.1.q", "model.layers.1.down"};

TEST(LayerConfig, NothingOfItsOwnIsTheRuns) {
  const MethodConfig run = configure("arb", {{"rotate", "both"}, {"block_size", 64}});
  EXPECT_EQ(layer_config(run, Json::object()), run);
  EXPECT_EQ(layer_config(run, {{"method", "arb"}}), run);
}

TEST(LayerConfig, SameMethod) {
  const MethodConfig run = configure("trellis", {{"bits", 1.5}, {"sweeps", 0}, {"sink_weight", 8}});
  MethodConfig expected = run;
  expected.bits = 2;
  EXPECT_EQ(layer_config(run, {{"bits", 2}}), expected);
}

// What derives from other settings is derived anew, unless the run has its own value.
TEST(LayerConfig, DerivedDefaults) {
  EXPECT_EQ(layer_config(configure("arb", {}), {{"classes", 1}}),
            configure("arb", {{"classes", 1}}));
  EXPECT_EQ(layer_config(configure("arb", {{"block_size", 64}}), {{"classes", 1}}),
            configure("arb", {{"classes", 1}, {"block_size", 64}}));
  // What the layer does not use any more has its default.
  EXPECT_EQ(
      layer_config(configure("arb", {{"rotate", "in"}, {"rotate_seed", 3}}), {{"rotate", "none"}}),
      configure("arb", {}));
}

// What a layer is not fitted by, the run's sums would have all the same.
TEST(LayerConfig, AMethodThatHasNoUseForTheRunsTargetsIsRefused) {
  const Json reference = {{"method", "billm"}, {"compat", "reference"}};
  EXPECT_THROW(check_layer_settings(configure("trellis", {}), reference), Error);
  check_layer_settings(configure("gptq", {}), reference);
  check_layer_settings(configure("gptq", {{"sink_weight", 4}}), {{"method", "rtn"}});
}

// As a method plans them, so that a plan may be given back.
TEST(LayerConfig, BitsThatAPlanShiftsPastTheRange) {
  for (const double bits : {0.31, 1.73}) {
    check_layer_settings(configure("dbf", {}), {{"bits", bits}});
    EXPECT_EQ(layer_config(configure("dbf", {}), {{"bits", bits}}).bits, bits);
  }
  EXPECT_THROW(check_layer_settings(configure("dbf", {}), {{"bits", 0}}), Error);
  EXPECT_THROW(check_layer_settings(configure("dbf", {}), {{"bits", 5}}), Error);
  EXPECT_THROW(check_layer_settings(configure("trellis", {}), {{"bits", 3.25}}), Error);
}

TEST(LayerConfig, AnotherMethodHasItsDefaultsAndTheSettingsOfTheRun) {
  const MethodConfig run =
      configure("trellis",
                {{"target_share", 0.25}, {"damping", 0.5}, {"rotate_seed", 9}, {"sink_weight", 4}});
  EXPECT_EQ(
      layer_config(run, {{"method", "gptq"}, {"bits", 3}}),
      configure(
          "gptq",
          {{"bits", 3}, {"targets", "corrected"}, {"target_share", 0.25}, {"sink_weight", 4}}));
  EXPECT_EQ(layer_config(run, {{"method", "arb"}, {"rotate", "in"}}),
            configure("arb", {{"rotate", "in"},
                              {"targets", "corrected"},
                              {"target_share", 0.25},
                              {"sink_weight", 4}}));
  // rtn does not use it with own targets.
  EXPECT_EQ(layer_config(configure("gptq", {{"sink_weight", 4}}), {{"method", "rtn"}}),
            configure("rtn", {}));
}

TEST(Plan, TheLastPatternThatMatchesHolds) {
  const Json file = {{"*", {{"bits", 2}}},
                     {"*.down", {{"bits", 3}}},
                     {"model.layers.[1-9].*", {{"method", "gptq"}}},
                     {"model.layers.1.?", {{"bits", 16}}},
                     // The run's own method is nothing of the layer's own.
                     {"model.layers.0.q", {{"method", "trellis"}, {"bits", 2}}}};
  const LayerPlan plan = read_plan(file, "plan", kModules, configure("trellis", {}));
  EXPECT_EQ(plan, (LayerPlan{{"model.layers.0.q", {{"bits", 2}}},
                             {"model.layers.0.down", {{"bits", 3}}},
                             {"model.layers.1.q", {{"bits", 16}}},
                             {"model.layers.1.down", {{"method", "gptq"}}}}));
  EXPECT_TRUE(stays(plan, "model.layers.1.q"));
  EXPECT_FALSE(stays(plan, "model.layers.1.down"));
  EXPECT_FALSE(stays(plan, "another"));
}

TEST(Plan, WhatFollowsTheRun) {
  const LayerPlan plan = {{"bits", {{"bits", 2}}},
                          {"method", {{"method", "gptq"}}},
                          {"stays", {{"bits", 16}}},
                          {"other", {{"sweeps", 1}}}};
  for (const char* module : {"bits", "method", "stays"}) {
    EXPECT_FALSE(follows_run(plan, module, "bits")) << module;
  }
  EXPECT_TRUE(follows_run(plan, "other", "bits"));
  EXPECT_TRUE(follows_run(plan, "none", "bits"));
}

TEST(Plan, RefusesOnOneLine) {
  for (const Json& file :
       {Json{{"*", 1}}, Json{{"*", Json::array()}}, Json{{"*", {{"bits", 1.3}}}},
        Json{{"*", {{"bits", "\n"}}}}, Json{{"*", {{"\n", 1}}}}, Json{{"\n", {{"bits", 1}}}},
        Json{{"*", {{"method", "\n"}}}}, Json{{"*", {{"bits", nullptr}}}},
        Json{{"*", Json::object()}}, Json{{"*", {{"bits", {1}}}}}, Json{{"*", {{"method", 3}}}},
        Json{{"*", {{"sink_weight", 2}}}}, Json{{"*", {{"bits", 16}}}},
        Json{{"*", {{"bits", 16}, {"method", "gptq"}}}}}) {
    SCOPED_TRACE(dump_json(file));
    try {
      read_plan(file, "plan", kModules, configure("trellis", {}));
      ADD_FAILURE() << "was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_EQ(error.message().find("plan: "), 0u) << error.message();
      EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
    }
  }
}

}  // namespace
}  // namespace billm

// The method table and the checks of its settings.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/quantize/methods.h"

namespace billm {
namespace {

void expect_usage(const std::function<void()>& body, const std::string& part) {
  try {
    body();
    ADD_FAILURE() << "no error, expected one with: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage) << error.message();
    EXPECT_NE(error.message().find(part), std::string::npos)
        << "expected \"" << part << "\" in: " << error.message();
  }
}

TEST(ParseNm, Good) {
  EXPECT_EQ(parse_nm("4:8"), (NmPattern{4, 8}));
  EXPECT_EQ(parse_nm("1:2"), (NmPattern{1, 2}));
  EXPECT_EQ(parse_nm("16:16"), (NmPattern{16, 16}));
}

TEST(ParseNm, Bad) {
  for (const char* text : {"", ":", "4", "4:", ":8", "4:8:2", "4/8", " 4:8", "4:8 ", "a:b", "4:8x",
                           "99999999999:8", "4:99999999999"}) {
    expect_usage([&] { parse_nm(text); }, "expected N:M");
  }
  expect_usage([] { parse_nm("9:8"); }, "expected N in 1..8, got 9");
  expect_usage([] { parse_nm("0:8"); }, "got 0");
  expect_usage([] { parse_nm("-1:8"); }, "got -1");
  expect_usage([] { parse_nm("1:1"); }, "expected M in 2..16, got 1");
  expect_usage([] { parse_nm("4:17"); }, "got 17");
  expect_usage([] { parse_nm("4:-8"); }, "got -8");
}

TEST(Methods, Table) {
  std::set<std::string> names;
  for (const Method& method : methods()) {
    EXPECT_TRUE(names.insert(method.name).second) << method.name;
    EXPECT_GT(std::string(method.summary).size(), 10u) << method.name;
    EXPECT_NE(method.quantize, nullptr) << method.name;
    EXPECT_NE(method.nominal_bits, nullptr) << method.name;
    EXPECT_EQ(&find_method(method.name), &method);
  }
  expect_usage([] { find_method("bilm"); }, "unknown method: expected one of billm, stbllm");
}

TEST(Configure, RefusesWhatTheMethodIgnores) {
  const auto refuse = [](const char* method, const GivenSettings& given, const std::string& part) {
    SCOPED_TRACE(method);
    expect_usage([&] { configure(method, given); }, part);
  };
  refuse("awq", {}, "--method awq: unknown method");
  refuse("billm", {{"bitz", 2}}, "bitz: unknown setting: expected one of compat, nm,");
  refuse("billm", {{"bits", 2}}, "--bits: --method billm does not use it");
  refuse("gptq", {{"compat", "none"}}, "--compat: --method gptq does not use it");  // the default
  refuse("billm", {{"nm", "4:8"}}, "--nm: --method billm does not use it");
  refuse("rtn", {{"classes", 1}}, "--classes: --method rtn does not use it");
  refuse("rtn", {{"damping", 0.01}}, "--damping: --method rtn does not use it");
  refuse("rtn", {{"bits", 2}, {"scale_format", "log8"}},
         "--scales: --method rtn does not use it with --bits above 1");
  EXPECT_NO_THROW(configure("rtn", {{"bits", 1}, {"scale_format", "f16"}}));
  for (const char* name : {"offsets", "feedback", "objective"}) {
    const auto* member = std::get_if<ChoiceMember>(&find_setting(name).member);
    refuse("billm", {{"compat", "reference"}, {name, member->choices[0].name}},
           "does not use it with --compat reference");
  }
  refuse("stbllm", {{"compat", "reference"}, {"classes", 3}}, "--classes: ");
  refuse("stbllm", {{"compat", "reference"}, {"refine_rounds", 4}}, "--refine: ");
  refuse("arb", {{"classes", 1}, {"max_salient", 49}}, "or without salient columns");
  EXPECT_NO_THROW(configure("arb", {{"classes", 1}, {"salient_classes", 1}, {"max_salient", 5}}));
  refuse("billm", {{"refine_rounds", 0}, {"descend", false}}, "--no-descend: ");
  refuse("billm", {{"feedback", "none"}, {"descend", false}}, "--no-descend: ");
  try {
    configure("billm", {{"bits", 2}});
  } catch (const Error& error) {
    EXPECT_EQ(error.hint(), "leave it out, or choose a method that does: rtn, gptq, dbf, trellis");
  }
}

TEST(Configure, ValuesAsTextAndAsNumbers) {
  EXPECT_EQ(configure("gptq", {{"bits", "3"}}).bits, 3);
  EXPECT_EQ(configure("gptq", {{"bits", 3.0}}), configure("gptq", {{"bits", 3}}));
  EXPECT_EQ(configure("pbllm", {{"salient", "0.25"}}).salient_share, 0.25);
  EXPECT_FALSE(configure("gptq", {{"act_order", "false"}}).act_order);
  EXPECT_EQ(configure("stbllm", {{"nm", "6:8"}}).nm, (NmPattern{6, 8}));
  EXPECT_EQ(configure("stbllm", {}).nm, (NmPattern{4, 8}));
  EXPECT_EQ(configure("pbllm", {{"salient_metric", "magnitude"}}).salient_metric,
            SalientMetric::kMagnitude);
}

TEST(Configure, RefusesBadValues) {
  const auto refuse = [](const char* method, const char* name, SettingValue value,
                         const std::string& part) {
    SCOPED_TRACE(method);
    expect_usage([&] { configure(method, {{name, value}}); }, part);
  };
  refuse("rtn", "block_size", 7, "--block-size 7: expected a whole number 8..4096");
  refuse("rtn", "block_size", -128, "--block-size -128");
  refuse("rtn", "block_size", 4097, "--block-size 4097");
  refuse("rtn", "block_size", "1e99", "--block-size 1e99");
  refuse("rtn", "block_size", 128.5, "--block-size 128.5");
  refuse("stbllm", "block_size", 100, "expected a multiple of M of --nm 4:8");
  refuse("stbllm", "nm", "9:8", "--nm 9:8: expected N in 1..8, got 9");
  refuse("stbllm", "nm", 4, "--nm");
  refuse("stbllm", "nm_alloc", "best", "--nm-alloc best: expected one of uniform, adaptive");
  refuse("billm", "refine_rounds", -1, "--refine -1: expected a whole number 0..100");
  refuse("billm", "refine_rounds", 101, "--refine 101: expected a whole number 0..100");
  refuse("arb", "column_rounds", -1, "--column-rounds -1: expected a whole number 0..100");
  refuse("billm", "max_salient", 4096, "--max-salient 4096: expected a whole number 0..4095");
  for (const char* text : {"", "x", "2 ", "0x2", "nan", "2.5", "0", "5", "--"}) {
    refuse("rtn", "bits", text,
           "--bits " + std::string(text) + ": expected a whole number 1..4 with --method rtn");
  }
  refuse("gptq", "bits", 1, "--bits 1: expected a whole number 2..4 with --method gptq");
  for (const double share : {0.0, -0.1, 0.51, double(NAN)}) {
    refuse("pbllm", "salient", share, "expected a number above 0 and up to 0.5");
  }
  refuse("pbllm", "salient", "0.6", "--salient 0.6");
  refuse("billm", "damping", "nan", "--damping nan");
  refuse("billm", "damping", 0, "--damping 0: expected a number 1e-08..10");
  refuse("billm", "descend", "maybe", "--no-descend maybe: expected true or false");
  refuse("billm", "descend", 0, "--no-descend 0");
  refuse("billm", "feedback", true, "--feedback true: expected one of columns, blocks, none");
  refuse("billm", "refine_rounds", {}, "--refine none");
  refuse("billm", "classes", 0, "--classes 0: expected a whole number 1..3");
  refuse("billm", "classes", 4, "--classes 4: expected a whole number 1..3");
  refuse("billm", "salient_classes", -1, "--salient-classes -1: expected a whole number 0..3");
  refuse("billm", "salient_classes", 3, "expected 0..2 with --classes 2");
  expect_usage(
      [] {
        configure("stbllm", {{"classes", 1}, {"salient_classes", 2}});
      },
      "expected 0..1 with --classes 1 and --nm");
  expect_usage(
      [] {
        configure("arb", {{"classes", 1}, {"salient_classes", 4}});
      },
      "--salient-classes 4: expected a whole number 0..3");
  for (const char* method : {"billm", "stbllm", "arb"}) {
    for (int classes = 1; classes <= 3; ++classes) {
      for (int salient = 0; salient <= classes; ++salient) {
        EXPECT_NO_THROW(configure(method, {{"classes", classes}, {"salient_classes", salient}}));
      }
    }
  }
}

TEST(CheckConfig, OfConfigurationsMadeByHand) {
  for (const Method& method : methods()) {
    SCOPED_TRACE(method.name);
    const MethodConfig good(method.name);
    EXPECT_NO_THROW(check_config(good));
    const auto refuse = [&](const std::function<void(MethodConfig&)>& change,
                            const std::string& part) {
      MethodConfig bad = good;
      change(bad);
      expect_usage([&] { check_config(bad); }, part);
    };
    refuse([](auto& c) { c.method = "awq"; }, "awq");
    refuse([](auto& c) { c.block_size = 7; }, "--block-size");
    refuse([](auto& c) { c.refine_rounds = -1; }, "--refine");
    refuse([&](auto& c) { c.nm = uses(method, "nm") ? NmPattern{} : NmPattern{4, 8}; }, "--nm");
    refuse([](auto& c) { c.nm = {9, 8}; }, "--nm");
    refuse([](auto& c) { c.bits = 5; }, "--bits");
    refuse([](auto& c) { c.bits = 2.6; }, "--bits");
    refuse([](auto& c) { c.damping = NAN; }, "--damping");
    if (!uses(method, "act_order")) {
      refuse([](auto& c) { c.act_order = false; }, "--no-act-order");
    }
    if (uses(method, "compat")) {
      refuse(
          [](auto& c) {
            c.reference = true;
            c.classes = 1;
          },
          "does not use it with --compat reference");
    }
  }
}

TEST(Defaults, ThatFollowOtherSettings) {
  const auto classes = [](const char* method, const GivenSettings& given) {
    const MethodConfig config = configure(method, given);
    return std::pair{config.classes, config.salient_classes};
  };
  using Pair = std::pair<int, int>;
  EXPECT_EQ(classes("billm", {}), Pair(2, 2));
  EXPECT_EQ(classes("arb", {}), Pair(2, 2));
  EXPECT_EQ(classes("stbllm", {}), Pair(3, 3));
  EXPECT_EQ(classes("stbllm", {{"salient_classes", 2}}), Pair(3, 2));
  EXPECT_EQ(classes("stbllm", {{"classes", 2}}), Pair(2, 2));
  EXPECT_EQ(classes("billm", {{"classes", 3}}), Pair(3, 2));
  EXPECT_EQ(classes("arb", {{"classes", 1}}), Pair(1, 0));
  EXPECT_EQ(classes("arb", {{"salient_classes", 2}, {"classes", 1}}), Pair(1, 2));
  EXPECT_EQ(classes("rtn", {}), Pair(0, 0));
  EXPECT_EQ(classes("stbllm", {{"compat", "reference"}}), Pair(3, 2));
  EXPECT_EQ(configure("billm", {}).block_size, 128);
  EXPECT_EQ(configure("billm", {{"classes", 1}}).block_size, 128);
  EXPECT_EQ(configure("arb", {}).block_size, 256);
  EXPECT_EQ(configure("arb", {{"classes", 1}}).block_size, 4096);
  EXPECT_EQ(configure("arb", {{"classes", 1}, {"block_size", 64}}).block_size, 64);
}

// Manifests of finished runs have these keys: --resume and tools compare them.
TEST(ConfigJson, AsManifestsHaveIt) {
  EXPECT_EQ(dump_json(config_json(configure("stbllm", {}))),
            R"({"compat":"none","nm":"4:8","nm_alloc":"uniform","block_size":128,)"
            R"("scale_format":"log8","offsets":"none","feedback":"columns","objective":"weights",)"
            R"("refine_rounds":4,"descend":true,"classes":3,"salient_classes":3,)"
            R"("column_rounds":1,"max_salient":49,"bits":null,"act_order":null,"salient":null,)"
            R"("salient_metric":null,"damping":0.01,)"
            R"("targets":"own","target_share":0.5,"stream_share":0.5,"target_ridge":0.01,)"
            R"("sink_weight":1})");
  EXPECT_EQ(dump_json(config_json(configure("gptq", {{"bits", 3}, {"act_order", false}}))),
            R"({"compat":"none","nm":null,"nm_alloc":"uniform","block_size":128,)"
            R"("scale_format":"log8","offsets":"none","feedback":"columns","objective":"weights",)"
            R"("refine_rounds":4,"descend":true,"classes":0,"salient_classes":0,)"
            R"("column_rounds":1,"max_salient":49,"bits":3,"act_order":false,"salient":null,)"
            R"("salient_metric":null,"rotate":"none","rotate_seed":0,"damping":0.01,)"
            R"("targets":"own","target_share":0.5,"stream_share":0.5,"target_ridge":0.01,)"
            R"("sink_weight":1})");
}

TEST(SettingHelp, MethodsRangesAndDefaults) {
  EXPECT_EQ(setting_help(find_setting("block_size")),
            "Columns that share scales (8..4096; billm, stbllm, pbllm, rtn, gptq: default 128; "
            "arb: default 256, 4096 with --classes 1)");
  EXPECT_EQ(setting_help(find_setting("refine_rounds")),
            "Rounds of alternating updates of scales and codes (0..100; billm, stbllm, arb, pbllm: "
            "default 4; not with --compat reference)");
  EXPECT_EQ(setting_help(find_setting("bits")),
            "Bits of a weight (rtn: 1..4, default 1; gptq: 2..4, default 2; dbf: 0.5..1.5, "
            "default 1; trellis: 0.25..3 in steps of 0.25, default 1)");
  EXPECT_EQ(setting_help(find_setting("act_order")),
            "Columns from left to right, not by descending diag H (gptq)");
  EXPECT_EQ(setting_value_name(find_setting("feedback")), "columns|blocks|none");
}

}  // namespace
}  // namespace billm

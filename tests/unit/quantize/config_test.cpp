// The method table and the checks of its settings.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "billm/base/error.h"
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

TEST(CheckConfig, GoodAndBad) {
  for (const Method& method : methods()) {
    MethodConfig good;
    good.method = method.name;
    if (method.needs_nm) good.nm = {4, 8};
    EXPECT_NO_THROW(check_config(good)) << method.name;
    const auto refuse = [&](const std::function<void(MethodConfig&)>& change,
                            const std::string& part) {
      SCOPED_TRACE(method.name);
      MethodConfig bad = good;
      change(bad);
      expect_usage([&] { check_config(bad); }, part);
    };
    refuse([](auto& c) { c.method = "awq"; }, "awq");
    refuse([](auto& c) { c.block_size = 7; }, "--block-size 7");
    refuse([](auto& c) { c.block_size = -128; }, "--block-size");
    refuse([](auto& c) { c.block_size = 4097; }, "4097");
    refuse([](auto& c) { c.nm_alloc = "best"; }, "--nm-alloc best");
    refuse([](auto& c) { c.refine_rounds = -1; }, "--refine -1");
    refuse([](auto& c) { c.refine_rounds = 101; }, "--refine 101");
    refuse([&](auto& c) { c.nm = method.needs_nm ? NmPattern{} : NmPattern{4, 8}; }, "--nm");
    if (method.needs_nm) refuse([](auto& c) { c.block_size = 100; }, "multiple of M");
    // What the method would ignore.
    if (!method.has_reference) refuse([](auto& c) { c.reference = true; }, "--compat reference");
    if (!method.refines) {
      refuse([](auto& c) { c.refine_rounds = 1; }, "--refine");
      refuse([](auto& c) { c.descend = false; }, "--no-descend");
      refuse([](auto& c) { c.feedback = Feedback::kNone; }, "--feedback");
      refuse([](auto& c) { c.offset_kind = OffsetKind::kBlock; }, "--offsets");
    }
    if (method.classes == 0) {
      refuse([](auto& c) { c.objective = SearchObjective::kSaliency; }, "--objective");
      refuse([](auto& c) { c.max_salient = 3; }, "--max-salient");
    }
    if (!method.needs_nm) refuse([](auto& c) { c.nm_alloc = "adaptive"; }, "--nm-alloc");
    if (!method.has_columns) refuse([](auto& c) { c.column_rounds = 2; }, "--column-rounds");
    if (method.max_bits > 1) {
      refuse(
          [](auto& c) {
            c.bits = 2;
            c.scale_format = ScaleFormat::kF16;
          },
          "--scales");
    }
    for (const int bits : {-1, 0, 1, 2, 3, 4, 5, 8}) {
      if (bits >= std::max(1, method.min_bits) && bits <= method.max_bits) continue;
      refuse([&](auto& c) { c.bits = bits; }, "--bits");
    }
    if (!method.has_order) refuse([](auto& c) { c.act_order = false; }, "--no-act-order");
    const std::vector<double> shares =
        method.has_share ? std::vector<double>{0, -0.1, 0.51, NAN} : std::vector<double>{0.1};
    for (const double share : shares) {
      refuse([&](auto& c) { c.salient_share = share; }, "--salient");
    }
    if (!method.has_share) {
      refuse([](auto& c) { c.salient_metric = SalientMetric::kHessian; }, "--salient-metric");
    }
    EXPECT_EQ(bits_of(good), method.min_bits);
    for (good.bits = method.min_bits; *good.bits <= method.max_bits; ++*good.bits) {
      if (method.max_bits == 0) break;
      EXPECT_NO_THROW(check_config(good)) << method.name << " " << *good.bits;
      EXPECT_EQ(bits_of(good), *good.bits);
    }
    good.bits.reset();
    refuse([](auto& c) { c.column_rounds = -1; }, "--column-rounds -1");
    if (method.classes == 0) {
      refuse([](auto& c) { c.classes = 1; }, "has no magnitude classes");
      refuse([](auto& c) { c.salient_classes = 0; }, "has no magnitude classes");
      continue;
    }
    refuse([](auto& c) { c.classes = 0; }, "--classes 0: expected 1..3");
    refuse([](auto& c) { c.classes = 4; }, "--classes 4: expected 1..3");
    refuse([](auto& c) { c.salient_classes = -1; }, "--salient-classes -1: expected 0..");
    refuse([](auto& c) { c.salient_classes = 4; }, "--salient-classes 4: expected 0..");
    const auto with = [](int classes, int salient) {
      return [=](MethodConfig& c) {
        c.classes = classes;
        c.salient_classes = salient;
      };
    };
    refuse(with(2, 3), "expected 0..2 with --classes 2");
    if (method.needs_nm) {
      refuse(with(1, 2), "expected 0..1 with --classes 1 and --nm");
    } else {
      refuse(with(1, 4), "expected 0..3 with --classes 1");
    }
    if (method.has_reference) {
      refuse(
          [](auto& c) {
            c.reference = true;
            c.classes = 1;
          },
          "--compat reference");
    }
    for (int classes = 1; classes <= 3; ++classes) {
      for (int salient = 0; salient <= classes; ++salient) {
        MethodConfig config = good;
        with(classes, salient)(config);
        EXPECT_NO_THROW(check_config(config)) << method.name << classes << salient;
      }
    }
  }
}

TEST(ClassesOf, SetOrTheMethodsOwn) {
  const auto expect = [](const char* method, std::optional<int> classes, std::optional<int> salient,
                         int k, int s) {
    MethodConfig config;
    config.method = method;
    config.classes = classes;
    config.salient_classes = salient;
    EXPECT_EQ(classes_of(config).ordinary, k) << method;
    EXPECT_EQ(classes_of(config).salient, s) << method;
  };
  expect("billm", {}, {}, 2, 2);
  expect("arb", {}, {}, 2, 2);
  expect("stbllm", {}, {}, 3, 3);
  expect("stbllm", {}, 2, 3, 2);
  expect("stbllm", 2, {}, 2, 2);
  expect("billm", 3, {}, 3, 2);
  expect("arb", 1, {}, 1, 0);
  expect("arb", 1, 2, 1, 2);
  expect("rtn", {}, {}, 0, 0);
  MethodConfig reference;
  reference.method = "stbllm";
  reference.reference = true;
  EXPECT_EQ(classes_of(reference).salient, 2);
}

TEST(DefaultBlockSize, PerMethod) {
  MethodConfig config;
  EXPECT_EQ(default_block_size(config), 128);
  config.method = "arb";
  EXPECT_EQ(default_block_size(config), 256);
  config.classes = 1;
  EXPECT_EQ(default_block_size(config), 4096);
}

}  // namespace
}  // namespace billm

// What tuning needs, by the factors of the layers.
#include "billm/pipeline/learn_estimate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "billm/model/model.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/settings.h"
#include "src/pipeline/factor_counts.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

class TuneNeedsTest : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_llama(directory_.path());
    model_.emplace(directory_.path(), 1);
    for (const LinearSpec& linear : spec().family->linears) {
      sizes_.push_back({linear.out_width(spec().config), linear.in_width(spec().config)});
      weights_ += sizes_.back().rows * sizes_.back().cols;
      largest_ = std::max(largest_, sizes_.back().rows * sizes_.back().cols);
    }
  }
  const ModelSpec& spec() const { return model_->spec(); }
  TuneNeeds needs(const MethodConfig& method) const {
    return tune_needs(spec(), {}, method, 4, 512, 1e9, 2);
  }

  test::TemporaryDirectory directory_;
  std::optional<Model> model_;
  std::vector<LayerSize> sizes_;
  int64_t weights_ = 0, largest_ = 0;
};

TEST_F(TuneNeedsTest, LatentsOfBothFactors) {
  const TuneNeeds plain = needs(MethodConfig("arb"));
  int64_t last = 0;
  for (const double bits : {0.5, 1.0, 1.5}) {
    const MethodConfig method = configure("dbf", {{"bits", bits}});
    int64_t latents = 0;
    double products = 0;
    for (const LayerSize& size : sizes_) {
      const int64_t rank = find_method("dbf").rank(size, bits);
      latents += rank * (size.rows + size.cols);
      products += 2.0 * static_cast<double>(rank * size.rows * size.cols);
    }
    const FactorCounts counts = factor_counts(spec(), method);
    EXPECT_EQ(counts.latents, latents);
    EXPECT_EQ(counts.products, products);
    const TuneNeeds found = needs(method);
    EXPECT_EQ(found.host_bytes - plain.host_bytes, 4 * (latents - weights_));
    // A latent, two moments, a level and a mask each.
    EXPECT_EQ(found.device_bytes - plain.device_bytes - counts.temporary_bytes,
              14 * (latents - weights_));
    EXPECT_GT(latents, last);
    last = latents;
  }
  EXPECT_GT(needs(configure("dbf", {{"bits", 1.5}})).seconds, plain.seconds);
}

TEST_F(TuneNeedsTest, ARotatedLayerIsMadeOnceMore) {
  const TuneNeeds plain = needs(MethodConfig("arb"));
  const MethodConfig method = configure("arb", {{"rotate", std::string_view("both")}});
  EXPECT_EQ(factor_counts(spec(), method).latents, weights_);
  const TuneNeeds rotated = needs(method);
  EXPECT_EQ(rotated.host_bytes, plain.host_bytes);
  EXPECT_EQ(rotated.device_bytes - plain.device_bytes, 4 * 3 * largest_);
}

}  // namespace
}  // namespace billm

// Coding on a GPU against the CPU's tiles: with one lane the codes are the same bits; on an
// emulated GPU, where lanes share some sums, nearly all codes are the same and the error is.
#include "src/quantize/device_coder.h"

#include <gtest/gtest.h>

#include "billm/base/error.h"
#include "billm/quantize/accelerator.h"
#include "billm/quantize/row_share.h"
#include "kernels/cuda/coder_body.h"
#include "kernels/cuda/coder_layer.h"
#include "support/host_cuda.h"
#include "support/random_layer.h"
#include "support/sanitized.h"

namespace billm::test {
namespace {

class HostAccelerator : public Accelerator {
 public:
  std::vector<float> factor(const std::vector<float>&, const std::vector<double>&,
                            const std::vector<int64_t>&) const override {
    throw std::logic_error("not called");
  }
  const kernels::cuda::CudaApi* kernels() const override { return &host_cuda_api(); }
  int device() const override { return 0; }
  void give_back_memory() const override { host_cuda().allocations_left = -1; }
};

struct Case {
  const char* name;
  RegionFormat shape;
  Feedback feedback = Feedback::kColumns;
  int refine_rounds = 4;
  bool descend = true;
};

RegionFormat shape_of(int64_t rows, int64_t cols, int block_size, int classes, int salient) {
  RegionFormat shape;
  shape.rows = rows;
  shape.cols = cols;
  shape.block_size = block_size;
  shape.classes = classes;
  shape.salient_classes = salient;
  return shape;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  all.push_back({"billm", shape_of(70, 300, 128, 2, 2)});
  all.push_back({"narrow", shape_of(3, 5, 128, 2, 0)});
  all.push_back({"arb", shape_of(65, 300, 256, 2, 2)});
  all.push_back({"widest", shape_of(9, 1030, 512, 2, 1)});
  all.push_back({"one class", shape_of(20, 200, 128, 1, 3)});
  all.push_back({"form (ii)", shape_of(20, 200, 64, 2, 2), Feedback::kBlocks});
  all.push_back({"no feedback", shape_of(20, 200, 64, 2, 2), Feedback::kNone});
  all.push_back({"no descent", shape_of(20, 200, 64, 2, 2), Feedback::kColumns, 3, false});
  all.push_back({"no refinement", shape_of(20, 200, 64, 2, 2), Feedback::kColumns, 0});
  for (const ScaleFormat format : {ScaleFormat::kLog8, ScaleFormat::kF16, ScaleFormat::kF32}) {
    Case offsets{"offsets", shape_of(20, 200, 64, 2, 2)};
    offsets.shape.scale_format = format;
    offsets.shape.offset_kind = OffsetKind::kBlock;
    all.push_back(offsets);
  }
  Case stbllm{"stbllm", shape_of(40, 264, 128, 3, 3)};
  stbllm.shape.nm = {4, 8};
  all.push_back(stbllm);
  Case pbllm{"pbllm", shape_of(40, 200, 128, 1, 0)};
  pbllm.shape.integer_bits = 8;
  pbllm.shape.scattered = true;
  all.push_back(pbllm);
  return all;
}

struct Layer {
  explicit Layer(const Case& from)
      : w(random_normal(from.shape.rows * from.shape.cols, 1, 0.05f)),
        hessian(make_hessian(correlated_stats(from.shape.cols, 2 * from.shape.cols + 50, 2), true,
                             0.01, 1)) {
    Random random(5);
    const RegionFormat& shape = plan.shape = from.shape;
    for (int64_t col = 0; shape.salient_classes > 0 && col < shape.cols; ++col) {
      plan.salient.push_back(random.below(7) == 0);
    }
    if (shape.nm.active())
      plan.keep = nm_mask(si_scores(view(), hessian), shape.rows, shape.cols, shape.nm);
    for (size_t i = 0; shape.scattered && i < w.size(); ++i) {
      plan.integer.push_back(std::fabs(w[i]) > 0.08f);
    }
    config.feedback = from.feedback;
    config.refine_rounds = from.refine_rounds;
    config.descend = from.descend;
  }
  WeightView view() const { return {w.data(), plan.shape.rows, plan.shape.cols}; }
  RegionCodes code(const Accelerator* accelerator, const RowShare* share = nullptr) const {
    return code_binary(view(), hessian, plan, config, {.share = share, .accelerator = accelerator});
  }
  double error(const RegionCodes& linear) const {
    return layer_error(w, dequantize(linear), hessian.matrix, hessian.lambda, plan.shape.cols);
  }

  std::vector<float> w;
  Hessian hessian;
  BinaryPlan plan;
  MethodConfig config;
};

void expect_equal(const RegionCodes& one, const RegionCodes& other) {
  EXPECT_EQ(one.region, other.region);
  EXPECT_EQ(one.code, other.code);
  EXPECT_EQ(one.salient, other.salient);
  EXPECT_EQ(one.scale, other.scale);
  EXPECT_EQ(one.offset, other.offset);
  EXPECT_EQ(one.step, other.step);
  EXPECT_EQ(one.zero, other.zero);
  EXPECT_EQ(one.base, other.base);
}

TEST(DeviceCoder, OneLaneIsTheCpuToTheBit) {
  const HostAccelerator accelerator;
  host_cuda() = {};
  for (const Case& one : cases()) {
    SCOPED_TRACE(std::string(one.name) + ": " + text_of(one.shape));
    const Layer layer(one);
    host_cuda().row_launches = host_cuda().feedback_launches = 0;
    const RegionCodes linear = layer.code(&accelerator);
    ASSERT_NO_THROW(check_codes(linear));
    expect_equal(linear, layer.code(nullptr));
    EXPECT_EQ(host_cuda().row_launches, one.shape.groups());
    EXPECT_EQ(host_cuda().feedback_launches,
              one.feedback == Feedback::kNone ? 0 : one.shape.groups());
    EXPECT_EQ(host_cuda().live_allocations, 0);
  }
}

TEST(DeviceCoder, WarpsOfAnEmulatedGpu) {
  const HostAccelerator accelerator;
  host_cuda() = {.emulated = true};
  const std::vector<Case> all = cases();
  for (size_t i = 0; i < all.size(); i += kThinned) {
    Case one = all[i];
    // Two blocks of threads where that is quick: eight warps, and one more.
    one.shape.rows = std::min<int64_t>(one.shape.rows, one.shape.block_size <= 64 ? 9 : 3);
    SCOPED_TRACE(std::string(one.name) + ": " + text_of(one.shape));
    const Layer layer(one);
    const RegionCodes linear = layer.code(&accelerator), expected = layer.code(nullptr);
    ASSERT_NO_THROW(check_codes(linear));
    int64_t same = 0;
    for (size_t i = 0; i < linear.code.size(); ++i) {
      same += linear.code[i] == expected.code[i] && linear.region[i] == expected.region[i];
    }
    const double error = layer.error(linear), cpu = layer.error(expected);
    std::printf("%-14s same codes %.5f, error %.6g of the CPU's %.6g\n", one.name,
                static_cast<double>(same) / static_cast<double>(linear.code.size()), error / cpu,
                cpu);
    EXPECT_GT(static_cast<double>(same), 0.99 * static_cast<double>(linear.code.size()));
    EXPECT_NEAR(error, cpu, 0.01 * cpu);
  }
  host_cuda() = {};
}

// Rows shared by processes: each codes its own tiles, to the same bits.
class Third : public RowShare {
 public:
  explicit Third(int64_t first) : first_(first) {}
  Tiles own(int64_t tiles) const override { return {first_, first_ < tiles ? 1 : 0}; }
  void complete(int64_t, RegionCodes*) const override {}
  void complete(TrellisCodes*) const override {}

 private:
  int64_t first_;
};

TEST(DeviceCoder, OwnRowsOnly) {
  const HostAccelerator accelerator;
  host_cuda() = {};
  Case pbllm{"pbllm", shape_of(150, 100, 64, 1, 0)};
  pbllm.shape.integer_bits = 8;
  pbllm.shape.scattered = true;
  const Layer layer(pbllm);
  const RegionCodes whole = layer.code(nullptr);
  for (const int64_t tile : {0, 1, 2, 3}) {  // the last: none
    const Third share(tile);
    const RegionCodes part = layer.code(&accelerator, &share);
    for (int64_t row = 0; row < 150; ++row) {
      for (int64_t at = row * 100; at < (row + 1) * 100; ++at) {
        const bool own = row / 64 == tile;
        ASSERT_EQ(part.region[at], own ? whole.region[at] : 0);
        ASSERT_EQ(part.code[at], own ? whole.code[at] : 0);
      }
      for (int64_t b = 0; b < 2; ++b) {
        const int64_t at = whole.scale_index(b, 1, row);
        ASSERT_EQ(part.scale[at], row / 64 == tile ? whole.scale[at] : 0);
      }
    }
  }
}

TEST(DeviceCoder, WiderBlocksAreLeftToTheCpu) {
  const HostAccelerator accelerator;
  host_cuda() = {};
  const Layer layer(Case{"wide", shape_of(2, 600, 513, 1, 0)});
  expect_equal(layer.code(&accelerator), layer.code(nullptr));
  EXPECT_EQ(host_cuda().row_launches, 0);
}

// Whatever call fails: its text, and no memory left behind.
TEST(DeviceCoder, FailuresOfTheDevice) {
  const HostAccelerator accelerator;
  const Layer layer(Case{"billm", shape_of(4, 40, 16, 2, 2)});
  int failures = 0;
  for (int calls = 0; calls < 100; ++calls) {
    host_cuda() = {.fail_after = calls};
    try {
      layer.code(&accelerator);
      break;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFailure);
      EXPECT_EQ(error.message(), "coding on the GPU: no more");
      ++failures;
    }
    EXPECT_EQ(host_cuda().live_allocations, 0);
  }
  EXPECT_GT(failures, 20);
  EXPECT_LT(failures, 100);
  host_cuda() = {};
}

// The device is out of memory until another allocator gives back what it keeps.
TEST(DeviceCoder, AsksForMemoryTwice) {
  const HostAccelerator accelerator;
  const Layer layer(Case{"billm", shape_of(4, 40, 16, 2, 2)});
  for (const int full_at : {0, 3, 8}) {
    host_cuda() = {.allocations_left = full_at};
    expect_equal(layer.code(&accelerator), layer.code(nullptr));
    EXPECT_EQ(host_cuda().live_allocations, 0);
  }
  host_cuda() = {};
}

// Shared memory: a warp's arrays do not overlap where both are in use, eight rows fit into the
// smallest block's shared memory at the default width, and one at the widest.
TEST(DeviceCoder, SharedMemory) {
  for (const int width : {1, 5, 64, 128, 200, 256, 512}) {
    SCOPED_TRACE(width);
    std::vector<uint8_t> memory(static_cast<size_t>(kernels::cuda::coder_bytes(width)) + 16);
    const kernels::cuda::RowMemory m(memory.data(), width);
    EXPECT_LE(m.used, kernels::cuda::coder_bytes(width));
    EXPECT_GE(m.sort_size, width);
    const uint8_t* const w = reinterpret_cast<const uint8_t*>(m.w);
    EXPECT_GE(w, reinterpret_cast<const uint8_t*>(m.images + kernels::kMaxUnknowns * width));
    EXPECT_GE(w, reinterpret_cast<const uint8_t*>(m.splits + 32));
    EXPECT_GE(reinterpret_cast<const uint8_t*>(m.splits),
              reinterpret_cast<const uint8_t*>(m.keys + m.sort_size));
    EXPECT_GE(reinterpret_cast<const uint8_t*>(m.keys),
              reinterpret_cast<const uint8_t*>(m.prefix + width + 1));
    EXPECT_GE(memory.data() + m.used, m.best_cls + width);
  }
  constexpr int kSmallest = 99 * 1024;
  EXPECT_EQ(kernels::cuda::coder_warps(128, kSmallest), 8);
  EXPECT_GE(kernels::cuda::coder_warps(256, kSmallest), 4);
  EXPECT_GE(kernels::cuda::coder_warps(512, kSmallest), 2);
  EXPECT_EQ(kernels::cuda::coder_warps(512, 16 * 1024), 0);
}

}  // namespace
}  // namespace billm::test

// Packed linears on a CUDA device, on a fake one: its memory is ATen's on the CPU, its products are
// those of the emulated GPU.
#include "src/model/cuda_runner.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <vector>

#include "billm/base/error.h"
#include "billm/codes/region_codes.h"
#include "support/fake_cuda.h"
#include "support/random_layer.h"

namespace billm {
namespace {

using test::fake_cuda;
using test::fake_cuda_api;

const c10::Device kCpu(c10::kCPU);

class CudaRunnerTest : public testing::Test {
 protected:
  void SetUp() override { fake_cuda() = {}; }
  void TearDown() override {
    EXPECT_EQ(fake_cuda().live, 0);
    fake_cuda() = {};
  }
};

RegionFormat scattered_shape() {
  RegionFormat shape;
  shape.rows = 70;
  shape.cols = 200;
  shape.classes = 1;
  shape.salient_classes = 0;
  shape.integer_bits = 8;
  shape.scattered = true;
  return shape;
}

TEST_F(CudaRunnerTest, AnyNumberOfTokens) {
  RegionFormat plain;
  plain.rows = 70;
  plain.cols = 200;
  for (const RegionFormat& shape : {plain, scattered_shape()}) {
    const RegionCodes linear = test::random_codes(shape, 1);
    std::vector<float> w = dequantize(linear);
    const at::Tensor weight = at::from_blob(w.data(), {70, 200}, at::kFloat);
    for (const bool blas : {true, false}) {
      fake_cuda().blas = blas;
      testing::internal::CaptureStderr();
      const auto runner = make_cuda_runner(fake_cuda_api(), kCpu, 1);
      EXPECT_EQ(testing::internal::GetCapturedStderr(),
                blas ? ""
                     : "billm: warning: cuBLAS: not here: prompts are worked off without it, more "
                       "slowly\n");
      const auto copies = runner->make_copies(pack(linear), 20000);
      ASSERT_GT(copies.size(), 1u);
      for (const int64_t tokens : {1, 8, 9, 33}) {
        std::vector<float> values = test::random_normal(tokens * 200, 2);
        const at::Tensor x = at::from_blob(values.data(), {tokens, 200}, at::kFloat);
        const at::Tensor y = copies[0]->apply(x), expected = at::mm(x, weight.t());
        EXPECT_LT(y.sub(expected).norm().item<double>() / expected.norm().item<double>(), 2e-3)
            << tokens;
        EXPECT_TRUE(copies.back()->apply(x).equal(y));
      }
    }
  }
}

TEST_F(CudaRunnerTest, NoTrellises) {
  const PackedLayer packed = pack(LayerCodes(test::random_trellis(70, 200, {4}, 1)));
  const auto runner = make_cuda_runner(fake_cuda_api(), kCpu, 1);
  EXPECT_EQ(runner->unsupported(packed), "a trellis, which the CUDA kernels do not run yet");
  EXPECT_EQ(runner->make(packed), nullptr);
  EXPECT_THROW(runner->make_trellis(PackedTrellis()), Error);
}

TEST_F(CudaRunnerTest, RefusesOtherInputsAndSaysWhatWentWrong) {
  const PackedLayer packed = pack(LayerCodes(test::random_codes(scattered_shape(), 1)));
  const auto runner = make_cuda_runner(fake_cuda_api(), kCpu, 1);
  const auto layer = runner->make(packed);
  std::vector<float> values(400);
  const at::Tensor x = at::from_blob(values.data(), {2, 200}, at::kFloat);
  EXPECT_THROW(layer->apply(x.narrow(1, 0, 199)), Error);
  EXPECT_THROW(layer->apply(x.to(at::kDouble)), Error);
  EXPECT_THROW(layer->apply(x.view({400})), Error);
  EXPECT_THROW(make_cuda_runner(fake_cuda_api(), c10::Device(c10::kCUDA, 1), 1), Error);
  for (int calls = 0; calls < 5; ++calls) {
    fake_cuda().fail_after = calls;
    EXPECT_THROW(runner->make(packed), Error) << calls;
  }
  fake_cuda().fail_after = -1;
}

}  // namespace
}  // namespace billm

// AdamW against torch.optim.AdamW, at any number of threads, and from a stored state.
#include "../../../src/learn/adamw.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstring>

#include "billm/checkpoint/safetensors.h"
#include "billm/model/runtime.h"
#include "support/compare.h"
#include "support/environment.h"
#include "support/random_layer.h"

namespace billm {
namespace {

at::Tensor tensor(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = *file.find(name);
  at::Tensor result = at::empty(view.shape, at::kFloat);
  std::memcpy(result.mutable_data_ptr(), view.data.data(), view.data.size());
  return result;
}

std::span<const float> values(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

TEST(AdamW, IsThatOfTorch) {
  BILLM_NEED(python, "BILLM_PYTHON");
  init_torch();
  const test::TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "reference.safetensors";
  test::run_python(python, "make_adamw_reference.py", {path});
  const SafetensorsFile file(path);
  const at::Tensor gradients = tensor(file, "gradients"), expected = tensor(file, "expected");
  const at::Tensor rates = tensor(file, "rates");
  // The length of a step is the parameter's own, too.
  at::Tensor half = tensor(file, "start"), whole = half.clone();
  AdamW optimizer({{"half", half, 0.5}, {"whole", whole, 1}});
  for (int64_t step = 0; step < gradients.size(0); ++step) {
    optimizer.step({gradients[step], gradients[step]}, step + 1, rates[step].item<double>(), 1);
    EXPECT_TRUE(test::close(values(whole), values(expected[step].contiguous()),
                            {.absolute = 1e-6, .relative = 1e-5}))
        << "step " << step;
  }
  const at::Tensor start = tensor(file, "start");
  EXPECT_TRUE(test::close(values(half.sub(start)), values(whole.sub(start).mul(0.5)),
                          {.absolute = 1e-6, .relative = 1e-4}));
}

// Longer than a piece, and not a multiple of it.
TEST(AdamW, ThreadsDoNotMatterAndAStateGoesOn) {
  init_torch();
  constexpr int64_t kCount = (1 << 18) + 77;
  const auto random = [](uint32_t seed) {
    const std::vector<float> data = test::random_normal(kCount, seed);
    at::Tensor result = at::empty({kCount}, at::kFloat);
    std::memcpy(result.mutable_data_ptr(), data.data(), sizeof(float) * data.size());
    return result;
  };
  at::Tensor one = random(1), three = random(1), later = random(2);
  AdamW first({{"x", one, 0.1}}), second({{"x", three, 0.1}}), third({{"x", later, 0.1}});
  for (uint32_t step = 1; step <= 4; ++step) {
    const at::Tensor gradient = random(10 + step);
    first.step({gradient}, step, 0.5, 1);
    second.step({gradient}, step, 0.5, 3);
    if (step == 2) {
      NamedTensors from = first.state(), to = third.state();
      ASSERT_EQ(from.size(), 3u);
      for (size_t i = 0; i < from.size(); ++i) to[i].second.copy_(from[i].second);
    } else if (step > 2) {
      third.step({gradient}, step, 0.5, 2);
    }
  }
  EXPECT_TRUE(one.equal(three));
  EXPECT_TRUE(one.equal(later));
}

}  // namespace
}  // namespace billm

// Threads of ATen and the choice of device.
#include "billm/model/runtime.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>

#include "billm/base/error.h"
#include "billm/base/parallel.h"

namespace billm {
namespace {

TEST(Runtime, EveryThreadRunsAtenOnOneThread) {
  init_torch();
  init_torch();
  std::atomic<int> wrong = 0;
  parallel_for(16, 4, [&](int64_t) {
    if (at::get_num_threads() != 1) ++wrong;
  });
  EXPECT_EQ(wrong, 0);
}

TEST(Runtime, Devices) {
  EXPECT_TRUE(resolve_device("cpu").is_cpu());
  EXPECT_NO_THROW(resolve_device("auto"));
  try {
    resolve_device("tpu");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_EQ(error.message(), "device: expected auto, cpu or cuda, got tpu");
  }
}

TEST(Runtime, WhatIsChosen) {
  const auto none = [] { return std::string(); };
  const auto missing = [] { return std::string("libbillm_cuda.so: no such file"); };
  const auto not_asked = []() -> std::string {
    ADD_FAILURE() << "without a device it does not matter";
    return "";
  };
  EXPECT_TRUE(choose_device("auto", "", none).cuda);
  EXPECT_TRUE(choose_device("cuda", "", none).cuda);
  EXPECT_EQ(choose_device("auto", "", none).warning, "");
  EXPECT_FALSE(choose_device("auto", "no driver", not_asked).cuda);
  EXPECT_EQ(choose_device("auto", "no driver", not_asked).warning, "");
  // Only auto may take the CPU instead, and says so.
  const DeviceChoice choice = choose_device("auto", "", missing);
  EXPECT_FALSE(choice.cuda);
  EXPECT_EQ(choice.warning,
            "the CPU is used instead of the GPU: cannot load the CUDA kernels: libbillm_cuda.so: "
            "no such file (build billm where nvcc 13 is)");
  const auto refused = [](const std::string& no_device, const auto& no_kernels) {
    try {
      choose_device("cuda", no_device, no_kernels);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFailure);
      return error.message() + " (" + error.hint() + ")";
    }
    return std::string("no error");
  };
  EXPECT_EQ(refused("no driver", not_asked), "device cuda: no driver (use --device cpu)");
  EXPECT_EQ(refused("", missing),
            "cannot load the CUDA kernels: libbillm_cuda.so: no such file (build billm where nvcc "
            "13 is, or use --device cpu)");
}

TEST(Runtime, CudaIsThereOrOneClearError) {
  try {
    EXPECT_TRUE(resolve_device("cuda").is_cuda());
    EXPECT_TRUE(resolve_device("auto").is_cuda());
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailure);
    EXPECT_TRUE(error.message().starts_with("device cuda: "));
    EXPECT_EQ(error.message().find('\n'), std::string::npos);
    EXPECT_TRUE(resolve_device("auto").is_cpu());
  }
}

}  // namespace
}  // namespace billm

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

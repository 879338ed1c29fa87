// See targets.h. Of two targets the better one has the lower bit.
#include "kernels/cpu/targets.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

#include "billm/base/error.h"

namespace billm::kernels {

void limit_targets(const std::string& best) {
  std::string names;
  for (int64_t left = hwy::SupportedTargets() & HWY_TARGETS; left != 0; left &= left - 1) {
    const int64_t target = left & -left;
    if (best == hwy::TargetName(target)) {
      hwy::DisableTargets(target - 1);
      return;
    }
    names += std::string(names.empty() ? "" : ", ") + hwy::TargetName(target);
  }
  throw Error(ErrorCode::kUsage, "expected one of " + names + ", got " + best);
}

std::string best_target() {
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(targets & -targets);
}

}  // namespace billm::kernels

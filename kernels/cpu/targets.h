// Which instruction sets the kernels may use.
#pragma once

#include <string>

namespace billm::kernels {

// From now on no better one than this of Highway's targets ("AVX3_DL", "AVX3", "AVX2", "SSE4",
// "SSSE3", "SSE2"): to measure what other machines would do. To be called before any kernel. Throws
// Error{kUsage} for one that this machine or this build has not.
void limit_targets(const std::string& best);

// The name of the best one that kernels use.
std::string best_target();

}  // namespace billm::kernels

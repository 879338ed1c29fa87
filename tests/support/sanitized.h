// BILLM_SANITIZED: built with the address sanitizer.
//
// What an emulated GPU does takes ten times as long under the sanitizers: there every third shape
// is enough, since all of them run in the release build.
#pragma once

#if defined(__SANITIZE_ADDRESS__)  // g++
#define BILLM_SANITIZED
#elif defined(__has_feature)  // clang++
#if __has_feature(address_sanitizer)
#define BILLM_SANITIZED
#endif
#endif

namespace billm::test {

#if defined(BILLM_SANITIZED)
inline constexpr int kThinned = 3;
#else
inline constexpr int kThinned = 1;
#endif

}  // namespace billm::test

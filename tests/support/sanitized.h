// What an emulated GPU does takes ten times as long under the sanitizers: there every third shape
// is enough, since all of them run in the release build.
#pragma once

namespace billm::test {

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BILLM_SANITIZED
#endif
#endif

#if defined(BILLM_SANITIZED) || defined(__SANITIZE_ADDRESS__)
inline constexpr int kThinned = 3;
#else
inline constexpr int kThinned = 1;
#endif

}  // namespace billm::test

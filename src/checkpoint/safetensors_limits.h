// Numbers of the safetensors format that its reader and its writer share.
#pragma once

#include <cstddef>
#include <cstdint>

namespace billm {

inline constexpr size_t kSafetensorsPrefix = sizeof(uint64_t);  // the header's length
inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // the reference's limit
inline constexpr size_t kSafetensorsAlignment = 8;              // of the data's first byte

}  // namespace billm

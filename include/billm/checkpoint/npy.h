// Token ids in NumPy's .npy files (NEP 1): pre-tokenized calibration and evaluation text.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "billm/checkpoint/token_source.h"

namespace billm {

// An array of int32 or int64, [sequences, length] or [length] (one sequence), C order,
// little-endian, format version 1, 2 or 3. Values must fit int32. Throws Error{kBadInput} that
// starts with the path for anything else, a size that differs from the header's included.
TokenMatrix read_npy(const std::filesystem::path& path);
// The same from the file's bytes; `name` stands in error messages.
TokenMatrix parse_npy(std::span<const std::byte> bytes, const std::string& name);

// Writes version 1, int32, [rows, cols]. Throws Error{kFailure} as write_file_atomic.
void write_npy(const std::filesystem::path& path, const TokenMatrix& matrix);

}  // namespace billm

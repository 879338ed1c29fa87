// Strict JSON of files that came from elsewhere: config.json, a shard index, a tensor file's
// header.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "billm/base/printable.h"  // what reads JSON speaks of its text

namespace billm {

// Nesting that no file of these kinds needs; also keeps recursive walks over the result shallow.
inline constexpr int kMaxJsonDepth = 64;

// Parses one JSON object. Refuses, as Error{kBadInput} starting with `where`: bad syntax, bad
// UTF-8, a NUL byte, a duplicate key at any level, deeper nesting than kMaxJsonDepth, a value that
// is not an object.
nlohmann::json parse_json_object(std::string_view text, const std::string& where);

}  // namespace billm

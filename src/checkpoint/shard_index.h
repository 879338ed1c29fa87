// The index of a sharded checkpoint: which file holds which tensor. The same JSON for safetensors
// and .bin.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace billm {

// Tensor -> plain file name beside the index (never a path out of its directory); not empty.
// Throws Error{kBadInput} starting with `where`.
std::map<std::string, std::string> parse_shard_index(std::string_view text,
                                                     const std::string& where);

}  // namespace billm

// The pickle of a state dict, read without running it. A pickle is a program for a small stack
// machine that can call any function; of its 68 opcodes this reader knows the ones that torch.save
// writes for a dict of tensors (protocols 1 to 5), and of all functions the few of a table in the
// .cpp, which it understands instead of calling them. Everything else is an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "billm/checkpoint/dtype.h"

namespace billm {

// A tensor as the pickle describes it: a dense row-major view of a storage, which is another entry
// of the archive. Numbers are not negative; whether storage and view exist, the caller checks.
struct PickledTensor {
  DType dtype;
  std::string storage;    // key: entry NAME/data/<key>
  int64_t storage_bytes;  // size of the whole storage
  int64_t offset_bytes;   // where the tensor begins in it
  std::vector<int64_t> shape;
};

using StateDict = std::map<std::string, PickledTensor, std::less<>>;

// Throws Error{kBadInput} starting with `where`. Never recurses; memory is in proportion to the
// pickle, whose size, stack and memo are limited.
StateDict read_state_dict(std::span<const std::byte> pickle, const std::string& where);

}  // namespace billm

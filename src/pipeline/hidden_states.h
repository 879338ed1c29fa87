// The hidden states of the calibration sequences between two blocks, and their file, from which
// --resume goes on.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <filesystem>
#include <string>
#include <vector>

#include "journal.h"

namespace billm {

struct HiddenStates {
  std::vector<at::Tensor>
      quantized;  // [tokens, hidden] per sequence: what the quantized blocks made
  std::vector<at::Tensor> original;  // the same in the original model; only with tuning
};

WrittenFile write_hidden(const HiddenStates& hidden, const std::filesystem::path& directory,
                         const std::string& name);

// Throws Error{kBadInput} if the file does not hold `sequences` of each stream.
HiddenStates read_hidden(const std::filesystem::path& path, int64_t sequences, bool with_original,
                         c10::Device device);

}  // namespace billm

// The hidden states of the calibration sequences between two blocks: a file of the unfinished
// result, from which the next block reads one sequence at a time and --resume goes on. Only tuning
// holds them in memory. Several processes write one file each, with the sequences that are theirs.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "billm/calibrate/collect.h"
#include "billm/checkpoint/safetensors.h"
#include "journal.h"

namespace billm {

// The two streams of a file: what the quantized blocks made, and, with tuning, what the original
// ones did.
inline constexpr const char* kQuantizedStream = "sequence";
inline constexpr const char* kOriginalStream = "original";

class HiddenStates : public Sequences {
 public:
  // The sequences `ids` of a stream, in any of `files` in `directory`. Throws Error{kBadInput} if
  // one is in none of them.
  HiddenStates(const std::filesystem::path& directory, const std::vector<WrittenFile>& files,
               const char* stream, const std::vector<int64_t>& ids, c10::Device device);
  int64_t count() const override { return static_cast<int64_t>(places_.size()); }
  int64_t tokens(int64_t i) const override;
  at::Tensor load(int64_t i) const override;
  std::vector<at::Tensor> load_all() const;

 private:
  struct Place {
    size_t file;
    std::string name;
    const TensorView* view;
  };
  std::vector<SafetensorsFile> files_;
  std::vector<Place> places_;
  c10::Device device_;
};

// What is written: sequences `ids`, [tokens, width] each.
struct HiddenShape {
  std::vector<int64_t> ids;
  int64_t tokens = 0, width = 0;
};

// Computes the states of the sequences [first, first + count) of `ids` and gives each to `take`,
// from any thread.
using ComputeStates = std::function<void(int64_t first, int64_t count,
                                         const std::function<void(int64_t, at::Tensor)>& take)>;

// Writes the file while the states are computed, `batch` of them at a time. `originals`: the other
// stream, or empty.
WrittenFile write_hidden(const std::filesystem::path& directory, const std::string& name,
                         const HiddenShape& shape, const ComputeStates& compute, int64_t batch,
                         const std::vector<at::Tensor>& originals);

}  // namespace billm

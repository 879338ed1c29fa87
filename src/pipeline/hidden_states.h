// The hidden states of the calibration sequences between two blocks. A run keeps them in memory if
// they fit; else they lie in files of the unfinished result, from which the next block reads one
// sequence at a time. In both cases such files let --resume go on, and it can do without them: a
// run computes lost states again from the blocks that are finished (run_states.h). So nothing
// waits until they are on the disk. Several processes have files of their own each.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "billm/calibrate/collect.h"
#include "billm/checkpoint/safetensors.h"
#include "billm/pipeline/hidden_place.h"
#include "journal.h"

namespace billm {

// The two streams in the files: what the quantized blocks made, and, with tuning or corrected
// targets, what the original ones did.
inline constexpr const char* kQuantizedStream = "sequence";
inline constexpr const char* kOriginalStream = "original";

// Which sequences, [tokens, width] each.
struct HiddenShape {
  std::vector<int64_t> ids;
  int64_t tokens = 0, width = 0;
  int64_t bytes() const { return static_cast<int64_t>(ids.size()) * tokens * width * 4; }
};

// Computes the states of the sequences [first, first + count) of `ids` and gives each to `take`,
// from any thread. What is taken is no more read.
using ComputeStates = std::function<void(int64_t first, int64_t count,
                                         const std::function<void(int64_t, at::Tensor)>& take)>;

class HiddenStates : public Sequences {
 public:
  // Empty. `directory`: of the files; `device`: where load() puts what it loads; `stream`: what the
  // states are called in files.
  HiddenStates(std::filesystem::path directory, HiddenShape shape, HiddenPlace place,
               c10::Device device, const char* stream = kQuantizedStream);
  int64_t count() const override { return static_cast<int64_t>(shape_.ids.size()); }
  HiddenPlace place() const { return place_; }
  int64_t id(int64_t i) const { return shape_.ids[static_cast<size_t>(i)]; }
  int64_t tokens(int64_t) const override { return shape_.tokens; }
  // Valid until replace() or open(): what is in memory is not copied.
  at::Tensor load(int64_t i) const override;
  std::vector<at::Tensor> load_all() const;

  // Other states instead: computed, `batch` at a time if they go to files (NAME-0.safetensors ...).
  // The files of the states before stay.
  void replace(const std::string& name, const ComputeStates& compute, int64_t batch);
  // Those of this stream in any of `files`; kept where this keeps them. Throws Error{kBadInput} if
  // one is in none.
  void open(const std::vector<WrittenFile>& files);
  const std::vector<WrittenFile>& files() const { return written_; }  // none in memory
  // Files with these states: those that they lie in, else NAME-0.safetensors ... are written. May
  // run beside load().
  std::vector<WrittenFile> save(const std::string& name, int threads) const;

 private:
  const std::filesystem::path directory_;
  const HiddenShape shape_;
  const HiddenPlace place_;
  const c10::Device device_;
  const char* const stream_;
  at::Tensor kept_;                   // [count, tokens, width], unless on disk: one piece, since
                                      // states of their own would stand between what passes free
  std::vector<WrittenFile> written_;  // on disk
  std::vector<SafetensorsFile> files_;
  struct Place {
    size_t file;
    std::string name;
    const TensorView* view;
  };
  std::vector<Place> places_;  // on disk, by sequence
};

// Writes states that are in memory, in up to kSumParts files, on up to `threads` threads.
std::vector<WrittenFile> save_states(const std::filesystem::path& directory,
                                     const std::string& name, const char* stream,
                                     const HiddenShape& shape,
                                     const std::vector<at::Tensor>& states, int threads);

}  // namespace billm

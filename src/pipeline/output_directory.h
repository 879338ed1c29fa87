// A result directory that appears whole or not at all: work happens in `out`.partial, under a lock;
// finish() renames it to `out`.
#pragma once

#include <filesystem>

namespace billm {

class OutputDirectory {
 public:
  enum class Existing { kRefuse, kOverwrite, kResume };

  // Throws Error{kUsage} if `out` exists (unless kOverwrite) or an unfinished run is there (unless
  // kOverwrite, which removes it, or kResume); Error{kFailure} if it cannot be made or another
  // process works on it.
  OutputDirectory(std::filesystem::path out, Existing existing);
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  const std::filesystem::path& partial() const { return partial_; }
  // Removes leftovers (*.tmp), renames partial() to out; an old `out` is removed afterwards.
  void finish();

 private:
  void lock();

  std::filesystem::path out_, partial_, lock_path_;
  int lock_ = -1;
};

}  // namespace billm

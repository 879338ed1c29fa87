// A result directory that appears whole or not at all: work happens in `out`.partial, under a lock;
// finish() renames it to `out`.
#pragma once

#include <filesystem>
#include <vector>

#include "billm/base/file_lock.h"

namespace billm {

// Directory of a run that another one makes for itself in its partial().
inline constexpr const char* kUniformName = "uniform";

class OutputDirectory {
 public:
  enum class Existing { kRefuse, kOverwrite, kResume, kResumeOverwrite };

  // Throws Error{kUsage} if `out` exists (unless kOverwrite), if it exists and is neither empty nor
  // a model, if one of `sources` (the models that are read) lies in it, or if a run is
  // there that finished a block (unless kOverwrite, which removes it, or kResume); Error{kFailure}
  // if it cannot be made or another process works on it.
  OutputDirectory(const std::filesystem::path& out, Existing existing,
                  const std::vector<std::filesystem::path>& sources);
  // Removes partial() if this object made it and neither keep() nor finish() was called.
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  const std::filesystem::path& out() const { return out_; }  // absolute
  const std::filesystem::path& partial() const { return partial_; }
  // There is something in partial() now that kResume can go on from.
  void keep() { keep_ = true; }
  // Renames partial() to out. An old `out` is exchanged with it in one step and then removed.
  void finish();

 private:
  void check_replaceable(Existing existing,
                         const std::vector<std::filesystem::path>& sources) const;

  std::filesystem::path out_, partial_;
  FileLock lock_;
  bool keep_ = false;
};

}  // namespace billm

// An exclusive lock between processes: flock on a file, as Python's filelock takes it, too. A
// process that dies lets go of it.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace billm {

class FileLock {
 public:
  enum class Afterwards { kKeepFile, kRemoveFile };

  // Creates `path` if need be and waits until no other process holds it; while one does, `busy` is
  // called about every tenth of a second and may throw to give up. Throws Error{kFailure} with
  // `hint` if the file cannot be made or locked.
  FileLock(std::filesystem::path path, Afterwards afterwards, const std::string& hint,
           const std::function<void()>& busy);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  std::filesystem::path path_;
  Afterwards afterwards_;
  int fd_ = -1;
};

}  // namespace billm

// See include/billm/base/file_lock.h.
#include "billm/base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "billm/base/error.h"

namespace billm {

FileLock::FileLock(std::filesystem::path path, Afterwards afterwards, const std::string& hint,
                   const std::function<void()>& busy)
    : path_(std::move(path)), afterwards_(afterwards) {
  const auto cannot = [&](const char* what, int reason) {
    return Error(ErrorCode::kFailure,
                 path_.string() + ": cannot " + what + ": " + std::strerror(reason), hint);
  };
  while (true) {
    // 0664: users of a group may share a cache.
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
    if (fd_ < 0) throw cannot("create", errno);
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) {
      // The last holder may have removed the file between our open and flock: then lock a new one.
      struct stat ours {
      }, there{};
      if (::fstat(fd_, &ours) == 0 && ::stat(path_.c_str(), &there) == 0 &&
          ours.st_ino == there.st_ino && ours.st_dev == there.st_dev) {
        return;
      }
      ::close(fd_);
      continue;
    }
    const int reason = errno;
    ::close(fd_);
    if (reason == EINTR) continue;
    if (reason != EWOULDBLOCK) throw cannot("lock", reason);
    busy();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

FileLock::~FileLock() {
  if (afterwards_ == Afterwards::kRemoveFile) ::unlink(path_.c_str());
  ::close(fd_);
}

}  // namespace billm

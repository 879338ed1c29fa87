// See output_directory.h.
#include "output_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"

namespace billm {
namespace fs = std::filesystem;

namespace {

Error cannot(const fs::path& path, const std::string& what, const std::string& reason) {
  return Error(ErrorCode::kFailure, path.string() + ": cannot " + what + ": " + reason,
               "check permissions and free space, or choose another --out");
}

}  // namespace

OutputDirectory::OutputDirectory(fs::path out, Existing existing) {
  out = fs::absolute(out).lexically_normal();
  if (!out.has_filename()) out = out.parent_path();
  out_ = std::move(out);
  partial_ = out_.string() + ".partial";
  lock_path_ = out_.string() + ".lock";
  if (fs::exists(out_) && existing != Existing::kOverwrite) {
    throw Error(ErrorCode::kUsage, out_.string() + ": exists already",
                "choose another --out, or replace it with --overwrite");
  }
  std::error_code failure;
  fs::create_directories(out_.parent_path(), failure);
  if (failure) throw cannot(out_.parent_path(), "create", failure.message());
  lock();
  if (fs::exists(partial_)) {
    if (existing == Existing::kRefuse) {
      throw Error(ErrorCode::kUsage, partial_.string() + ": an unfinished run is there",
                  "continue it with --resume, or start again with --overwrite");
    }
    if (existing == Existing::kOverwrite) fs::remove_all(partial_, failure);
  }
  fs::create_directory(partial_, failure);
  if (failure) throw cannot(partial_, "create", failure.message());
  if (::access(partial_.c_str(), W_OK) != 0) throw cannot(partial_, "write", std::strerror(errno));
}

OutputDirectory::~OutputDirectory() {
  if (lock_ < 0) return;
  ::unlink(lock_path_.c_str());
  ::close(lock_);
}

void OutputDirectory::lock() {
  lock_ = ::open(lock_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw cannot(lock_path_, "create", std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    ::close(std::exchange(lock_, -1));
    if (reason == EWOULDBLOCK) {
      throw Error(ErrorCode::kFailure, out_.string() + ": another billm is writing there",
                  "wait for it, or choose another --out");
    }
    throw cannot(lock_path_, "lock", std::strerror(reason));
  }
}

void OutputDirectory::finish() {
  for (const auto& entry : fs::directory_iterator(partial_)) {
    if (entry.path().extension() == ".tmp") fs::remove(entry.path());
  }
  sync_directory(partial_);
  const fs::path old = out_.string() + ".old";
  std::error_code failure;
  fs::remove_all(old, failure);
  if (fs::exists(out_)) fs::rename(out_, old, failure);
  if (!failure) fs::rename(partial_, out_, failure);
  if (failure) throw cannot(out_, "rename to it", failure.message());
  sync_directory(out_.parent_path());
  fs::remove_all(old, failure);
}

}  // namespace billm

// See output_directory.h.
#include "output_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "journal.h"

namespace billm {
namespace fs = std::filesystem;

namespace {

constexpr const char* kHint = "check permissions and free space, or choose another --out";

Error cannot(const fs::path& path, const std::string& what, const std::string& reason) {
  return Error(ErrorCode::kFailure, path.string() + ": cannot " + what + ": " + reason, kHint);
}

// A dangling symbolic link is there, too: a directory cannot be renamed to it.
bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

fs::path without_slash(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

fs::path with_parents(const fs::path& path) {
  std::error_code failure;
  fs::create_directories(path.parent_path(), failure);
  if (failure) throw cannot(path.parent_path(), "create", failure.message());
  return path;
}

bool lies_in(const fs::path& path, const fs::path& directory) {
  const fs::path inner = fs::weakly_canonical(path), outer = fs::weakly_canonical(directory);
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

// Whether everything in `directory` is a file that a model directory or an unfinished run may hold.
bool looks_like_ours(const fs::path& directory, bool unfinished) {
  std::error_code failure;
  if (!fs::is_directory(directory, failure)) return false;
  bool weights = false;
  for (const auto& entry : fs::directory_iterator(directory, failure)) {
    const std::string name = entry.path().filename();
    const std::string extension = entry.path().extension();
    // A run beside its own (target_bits.h).
    if (unfinished && entry.path().stem() == kUniformName) {
      if (extension == ".lock" && entry.is_regular_file(failure)) continue;
      if ((extension.empty() || extension == ".partial") && looks_like_ours(entry.path(), true)) {
        continue;
      }
    }
    if (!entry.is_regular_file(failure)) return false;
    const bool known = extension == ".safetensors" || extension == ".json" || extension == ".tmp" ||
                       name == "manifest.sha256";
    if (unfinished && !known && !name.starts_with("LICENSE") && name != "NOTICE" &&
        extension != ".model" && extension != ".txt" && extension != ".jinja") {
      return false;
    }
    weights = weights || extension == ".safetensors";
  }
  if (failure) return false;
  return fs::is_empty(directory, failure) || unfinished ||
         (weights && fs::is_regular_file(directory / "config.json", failure));
}

}  // namespace

OutputDirectory::OutputDirectory(const fs::path& out, Existing existing,
                                 const std::vector<fs::path>& sources)
    : out_(without_slash(out)),
      partial_(out_.string() + ".partial"),
      lock_(with_parents(out_.string() + ".lock"), FileLock::Afterwards::kRemoveFile, kHint,
            [this] {
              throw Error(ErrorCode::kFailure, out_.string() + ": another billm is writing there",
                          "wait for it, or choose another --out");
            }) {
  check_replaceable(existing, sources);
  std::error_code failure;
  if (fs::exists(partial_)) {
    const bool started = fs::exists(partial_ / kJournalName);  // something was finished
    if (existing == Existing::kRefuse && started) {
      throw Error(ErrorCode::kUsage, partial_.string() + ": an unfinished run is there",
                  "--resume goes on with it, --overwrite starts again");
    }
    if (!looks_like_ours(partial_, true)) {
      throw Error(ErrorCode::kUsage, partial_.string() + ": expected an unfinished run of billm",
                  "choose another --out, or remove it yourself");
    }
    if (existing == Existing::kOverwrite || !started) fs::remove_all(partial_, failure);
    if (failure) throw cannot(partial_, "remove", failure.message());
  }
  const bool created = fs::create_directory(partial_, failure);
  if (failure) throw cannot(partial_, "create", failure.message());
  keep_ = !created;
  if (::access(partial_.c_str(), W_OK) != 0) throw cannot(partial_, "write", std::strerror(errno));
}

void OutputDirectory::check_replaceable(Existing existing,
                                        const std::vector<fs::path>& sources) const {
  if (!is_there(out_)) return;
  if (existing != Existing::kOverwrite && existing != Existing::kResumeOverwrite) {
    throw Error(ErrorCode::kUsage, out_.string() + ": exists already",
                "choose another --out, or replace it with --overwrite");
  }
  for (const fs::path& source : sources) {
    if (!lies_in(source, out_)) continue;
    throw Error(ErrorCode::kUsage,
                out_.string() + ": --overwrite would remove the model " + source.string(),
                "choose another --out");
  }
  // A slip such as --out ~ --overwrite must not cost more than a model.
  if (!looks_like_ours(out_, false)) {
    throw Error(ErrorCode::kUsage,
                out_.string() + ": --overwrite: expected a model directory, got something else",
                "choose another --out, or remove it yourself");
  }
}

OutputDirectory::~OutputDirectory() {
  std::error_code ignored;
  if (!keep_) fs::remove_all(partial_, ignored);
}

void OutputDirectory::finish() {
  keep_ = true;
  sync_directory(partial_);
  std::error_code failure;
  fs::path old;
  if (is_there(out_)) {
    old = partial_;
    if (::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, out_.c_str(), RENAME_EXCHANGE) != 0) {
      // A file system that cannot exchange: for a moment there is no `out`.
      old = out_.string() + ".replaced-" + std::to_string(::getpid());
      fs::rename(out_, old, failure);
      if (!failure) fs::rename(partial_, out_, failure);
    }
  } else {
    fs::rename(partial_, out_, failure);
  }
  if (failure) throw cannot(out_, "rename to it", failure.message());
  sync_directory(out_.parent_path());
  if (!old.empty()) fs::remove_all(old, failure);
}

}  // namespace billm

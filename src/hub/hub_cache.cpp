// See include/billm/hub/hub_cache.h.
#include "billm/hub/hub_cache.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <system_error>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

// A word of a hub id or of a revision: what the hub allows, and never "..".
bool is_word(std::string_view text) {
  return !text.empty() && text.front() != '.' && text.front() != '-' &&
         text.find("..") == std::string_view::npos &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
         });
}

// Whether `check` holds for each part of a path.
template <typename Check>
bool all_parts(std::string_view text, Check check) {
  while (true) {
    const size_t slash = text.find('/');
    if (!check(text.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

Error cannot_write(const fs::path& path, const std::string& reason) {
  return Error(ErrorCode::kFailure, path.string() + ": cannot write: " + reason,
               "HF_HUB_CACHE names another directory for downloads");
}

void make_directory(const fs::path& path) {
  std::error_code failure;
  fs::create_directories(path, failure);
  if (failure) throw cannot_write(path, failure.message());
}

// Two runs may write the same file at once: each under a name of its own, then renamed.
void write_shared(const fs::path& path, std::string_view text) {
  const fs::path own = path.string() + "." + std::to_string(::getpid());
  write_file_atomic(own, text);
  std::error_code failure;
  fs::rename(own, path, failure);
  if (failure) throw cannot_write(path, failure.message());
}

}  // namespace

bool is_repository_id(std::string_view text) {
  constexpr size_t kLongest = 96;
  return text.size() <= kLongest && std::count(text.begin(), text.end(), '/') <= 1 &&
         text.find("--") == std::string_view::npos && all_parts(text, [](std::string_view word) {
           return is_word(word) && word.back() != '.' && word.back() != '-';
         });
}

bool is_revision(std::string_view text) {
  constexpr size_t kLongest = 255;
  return text.size() <= kLongest && all_parts(text, is_word);
}

bool is_commit(std::string_view text) {
  return text.size() == 40 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_relative_path(std::string_view text) {
  constexpr size_t kLongest = 1024, kLongestPart = 255;
  return text.size() <= kLongest && all_parts(text, [](std::string_view part) {
           return !part.empty() && part != "." && part != ".." && part.size() <= kLongestPart &&
                  std::none_of(part.begin(), part.end(),
                               [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '\\'; });
         });
}

CachedRepository::CachedRepository(fs::path cache, Repository repository)
    : cache_(std::move(cache)), repository_(std::move(repository)) {
  if (!is_repository_id(repository_.id)) {
    throw bad_input(printable(repository_.id) + ": expected a hub id org/name");
  }
  folder_ = repository_.id;
  if (const size_t slash = folder_.find('/'); slash != std::string::npos) {
    folder_.replace(slash, 1, "--");
  }
  folder_.insert(0, repository_.kind == RepositoryKind::kModel ? "models--" : "datasets--");
  root_ = cache_ / folder_;
}

std::optional<std::string> CachedRepository::find_commit(const std::string& revision) const {
  const fs::path ref = root_ / "refs" / revision;
  if (is_revision(revision) && is_file(ref)) {
    std::string commit = read_text_file(ref);
    while (!commit.empty() && std::isspace(static_cast<unsigned char>(commit.back())) != 0) {
      commit.pop_back();  // some tools end the file with a newline
    }
    if (!is_word(commit)) {
      throw bad_input(ref.string() + ": expected a commit, got " + printable(commit),
                      "remove this file");
    }
    return commit;
  }
  return is_commit(revision) ? std::optional(revision) : std::nullopt;
}

std::vector<std::string> CachedRepository::commits() const {
  std::vector<std::string> commits;
  std::error_code failure;
  fs::directory_iterator entry(root_ / "snapshots", failure);
  for (; !failure && entry != fs::directory_iterator(); entry.increment(failure)) {
    commits.push_back(entry->path().filename());
  }
  std::sort(commits.begin(), commits.end());
  return commits;
}

fs::path CachedRepository::snapshot(const std::string& commit) const {
  return root_ / "snapshots" / commit;
}

fs::path CachedRepository::blob(const std::string& etag) const { return root_ / "blobs" / etag; }

fs::path CachedRepository::partial_blob(const std::string& etag) const {
  return root_ / "blobs" / (etag + ".incomplete");
}

fs::path CachedRepository::lock_path(const std::string& etag) const {
  return cache_ / ".locks" / folder_ / (etag + ".lock");
}

bool CachedRepository::is_absent(const std::string& commit, const std::string& file) const {
  return is_file(root_ / ".no_exist" / commit / file);
}

void CachedRepository::make_directories() const {
  make_directory(root_ / "blobs");
  make_directory(root_ / "refs");
  make_directory(cache_ / ".locks" / folder_);
  // Backup programs skip directories that hold this file (https://bford.info/cachedir/).
  const fs::path tag = cache_ / "CACHEDIR.TAG";
  if (!is_file(tag)) {
    write_shared(tag,
                 "Signature: 8a477f597d28d172789f06886806bc55\n"
                 "# This file is a cache directory tag, see https://bford.info/cachedir/\n");
  }
}

void CachedRepository::write_ref(const std::string& revision, const std::string& commit) const {
  if (revision == commit) return;
  const fs::path ref = root_ / "refs" / revision;
  if (is_file(ref) && read_text_file(ref) == commit) return;
  make_directory(ref.parent_path());
  write_shared(ref, commit);
}

void CachedRepository::link(const std::string& commit, const std::string& file,
                            const std::string& etag) const {
  const fs::path link = snapshot(commit) / file;
  make_directory(link.parent_path());
  replace_symlink(link, blob(etag).lexically_relative(link.parent_path()));
}

void CachedRepository::mark_absent(const std::string& commit, const std::string& file) const {
  const fs::path mark = root_ / ".no_exist" / commit / file;
  make_directory(mark.parent_path());
  write_shared(mark, "");
}

}  // namespace billm

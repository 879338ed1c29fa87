// The HuggingFace cache's layout, that of huggingface_hub 2.x:
//   <cache>/models--org--name/refs/<revision>                 the commit of a branch or tag
//                            /blobs/<etag>                    contents, named by their hash
//                            /blobs/<etag>.incomplete         what a cut download has so far
//                            /snapshots/<commit>/<file>       relative links to blobs
//                            /.no_exist/<commit>/<file>       empty: the repository has no such
//                            file
//   <cache>/.locks/models--org--name/<etag>.lock              flock: one process loads a blob
// and datasets--org--name likewise. What billm loads other tools find, and the other way round.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billm {

enum class RepositoryKind { kModel, kDataSet };

struct Repository {
  RepositoryKind kind = RepositoryKind::kModel;
  std::string id;  // "org/name", or "name" (old data sets); see is_repository_id
};

// What the hub allows: one or two words of letters, digits, '.', '_', '-'; no "--", no "..".
bool is_repository_id(std::string_view text);
// A branch, tag or commit; may have slashes (refs/convert/parquet), never leads out of a directory.
bool is_revision(std::string_view text);
// 40 lower-case hexadecimal digits.
bool is_commit(std::string_view text);
// A relative path that stays below the directory it is appended to: no empty, "." or ".." parts, no
// control characters, parts of at most 255 bytes.
bool is_relative_path(std::string_view text);

class CachedRepository {
 public:
  // `cache` as in HubEnvironment. Throws Error{kBadInput} if the id is not one.
  CachedRepository(std::filesystem::path cache, Repository repository);

  const Repository& repository() const { return repository_; }
  const std::filesystem::path& root() const { return root_; }
  // The commit that `revision` stood for when it was last looked up; a commit is itself. Throws
  // Error{kBadInput} if the ref's file holds no commit.
  std::optional<std::string> find_commit(const std::string& revision) const;
  std::vector<std::string> commits() const;  // that have a snapshot, sorted
  std::filesystem::path snapshot(const std::string& commit) const;
  std::filesystem::path blob(const std::string& etag) const;
  std::filesystem::path partial_blob(const std::string& etag) const;

  bool is_absent(const std::string& commit, const std::string& file) const;

  // Writing. All throw Error{kFailure} with the system's reason.
  void make_directories() const;
  void write_ref(const std::string& revision, const std::string& commit) const;
  // snapshots/<commit>/<file> -> the blob, replacing what is there. `file` is_relative_path.
  void link(const std::string& commit, const std::string& file, const std::string& etag) const;
  void mark_absent(const std::string& commit, const std::string& file) const;
  std::filesystem::path lock_path(const std::string& etag) const;

 private:
  std::filesystem::path cache_, root_;
  Repository repository_;
  std::string folder_;
};

}  // namespace billm

// What the hub answers, read with distrust: lists of files and the headers that describe a file.
// Nothing here touches the network or the disk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billm {

// A file as the list of a repository has it.
struct ListedFile {
  std::string path;  // is_relative_path
  std::optional<int64_t> size;
};

// A repository at one commit.
struct RepositoryListing {
  std::string commit;             // is_commit
  std::vector<ListedFile> files;  // sorted by path, each once

  const ListedFile* find(std::string_view path) const;
};

// The answer of {endpoint}/api/models/{id}/revision/{revision}?blobs=true. Throws Error{kBadInput}
// starting with `where` if it is not one, or names a file that would leave its directory.
RepositoryListing parse_listing(std::string_view json, const std::string& where);

// The file names in the "weight_map" of a *.index.json, sorted, each once; plain names beside the
// index. Throws Error{kBadInput} starting with `where`.
std::vector<std::string> parse_index_files(std::string_view json, const std::string& where);

// `W/"abc"` or `"abc"` -> abc, if that is a SHA-256 (64 digits) or a git hash (40 digits), in lower
// case; else nothing: such a file could not be checked, and its name in the cache would be the
// server's choice.
std::optional<std::string> parse_etag(std::string_view header);

// A number of bytes, plain decimal digits below 2^62; else nothing.
std::optional<int64_t> parse_size(std::string_view header);

// "bytes 10-19/20" -> {10, 19, 20}; else nothing.
struct ContentRange {
  int64_t first = 0, last = 0, total = 0;
};
std::optional<ContentRange> parse_content_range(std::string_view header);

}  // namespace billm

// The lines of a gzip file one after the other, so that the first documents of a large file cost
// nothing but their own bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace billm {

class GzipLines {
 public:
  // Throws Error{kBadInput} if the file cannot be opened or is no gzip file.
  explicit GzipLines(const std::filesystem::path& path);
  ~GzipLines();
  GzipLines(const GzipLines&) = delete;
  GzipLines& operator=(const GzipLines&) = delete;

  // The next line without its newline; false at the end. Throws Error{kBadInput} if the file is
  // damaged or cut there, or the line has more than 64 MiB.
  bool next(std::string& line);
  std::string where() const;  // "file: line 7", of the line that next() gave

 private:
  bool fill();
  std::filesystem::path path_;
  void* file_ = nullptr;  // gzFile
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  int64_t number_ = 0;
};

}  // namespace billm

// See gzip_lines.h.
#include "gzip_lines.h"

#include <zlib.h>

#include <algorithm>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"

namespace billm {
namespace {

constexpr size_t kLongestLine = size_t{64} << 20;
constexpr size_t kBuffer = size_t{256} << 10;

Error damaged(const std::string& where, const std::string& reason) {
  return bad_input(where + ": cannot read as gzip: " + reason,
                   "if the file is damaged remove it: it is downloaded again");
}

}  // namespace

GzipLines::GzipLines(const std::filesystem::path& path) : path_(path), buffer_(kBuffer) {
  if (!is_file(path)) throw bad_input(path.string() + ": expected a file");
  file_ = gzopen(path.c_str(), "rb");
  if (file_ == nullptr) throw damaged(path.string(), "it cannot be opened");
  auto* file = static_cast<gzFile>(file_);
  gzbuffer(file, kBuffer);
  if (gzdirect(file) != 0) {  // zlib would hand out the bytes as they are
    gzclose_r(file);
    throw damaged(path.string(), "it is not compressed");
  }
}

GzipLines::~GzipLines() { gzclose_r(static_cast<gzFile>(file_)); }

bool GzipLines::fill() {
  auto* file = static_cast<gzFile>(file_);
  const int count = gzread(file, buffer_.data(), static_cast<unsigned>(buffer_.size()));
  int code = Z_OK;
  std::string reason = gzerror(file, &code);
  if (const std::string name = path_.string() + ": "; reason.starts_with(name)) {
    reason.erase(0, name.size());
  }
  // The end of a file that was cut: all bytes that can be had, and Z_BUF_ERROR.
  if (count < 0 || (count == 0 && code != Z_OK && code != Z_STREAM_END)) {
    throw damaged(path_.string() + ": after line " + std::to_string(number_),
                  code == Z_BUF_ERROR ? "it ends too early" : reason);
  }
  begin_ = 0;
  end_ = static_cast<size_t>(count);
  return count > 0;
}

bool GzipLines::next(std::string& line) {
  line.clear();
  bool any = false;
  while (begin_ < end_ || fill()) {
    any = true;
    const char* start = buffer_.data() + begin_;
    const char* stop = std::find(start, std::as_const(buffer_).data() + end_, '\n');
    line.append(start, stop);
    begin_ = static_cast<size_t>(stop - buffer_.data());
    if (begin_ < end_) {
      ++begin_;  // the newline
      break;
    }
    if (line.size() > kLongestLine) {
      throw bad_input(path_.string() + ": line " + std::to_string(number_ + 1) +
                      ": expected at most " + std::to_string(kLongestLine) + " bytes, got more");
    }
  }
  if (any) ++number_;
  return any;
}

std::string GzipLines::where() const {
  return path_.string() + ": line " + std::to_string(number_);
}

}  // namespace billm

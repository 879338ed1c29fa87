// .npy: magic, version, header length, a Python dictionary as text, the values. See npy.h.
#include "billm/checkpoint/npy.h"

#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

static_assert(std::endian::native == std::endian::little, "values are copied as they lie");

constexpr std::string_view kMagic("\x93NUMPY", 6);
// NumPy writes about 128 bytes; a header that needs more describes no token array.
constexpr size_t kMaxHeader = 4096;

struct Header {
  std::string descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<uint64_t>> shape;
};

// The dictionary {'descr': '<i4', 'fortran_order': False, 'shape': (8, 2048), }, nothing more of
// Python than that.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  Header run() {
    Header header;
    expect('{');
    while (!take('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && header.descr.empty()) {
        header.descr = string();
        if (header.descr.empty()) fail();
      } else if (key == "fortran_order" && !header.fortran_order) {
        header.fortran_order = boolean();
      } else if (key == "shape" && !header.shape) {
        header.shape = shape();
      } else {
        fail();
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_blanks();
    if (at_ != text_.size() || header.descr.empty() || !header.fortran_order || !header.shape) {
      fail();
    }
    return header;
  }

 private:
  [[noreturn]] void fail() const {
    throw bad_input(name_ +
                    ": .npy header: expected descr, fortran_order and shape once each, got \"" +
                    printable(text_) + "\"");
  }
  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool take(char c) {
    skip_blanks();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail();
  }
  std::string string() {
    skip_blanks();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) fail();
    const size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string_view::npos) fail();
    const std::string result(text_.substr(at_ + 1, end - at_ - 1));
    if (result.find('\\') != std::string::npos) fail();
    at_ = end + 1;
    return result;
  }
  bool boolean() {
    skip_blanks();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return value;
      }
    }
    fail();
  }
  std::vector<uint64_t> shape() {
    std::vector<uint64_t> dims;
    expect('(');
    while (!take(')')) {
      skip_blanks();
      uint64_t value = 0;
      const auto parsed = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
      if (parsed.ec != std::errc()) fail();
      at_ = static_cast<size_t>(parsed.ptr - text_.data());
      dims.push_back(value);
      if (!take(',')) {
        expect(')');
        if (dims.size() == 1) fail();  // (5) is a number, (5,) is a shape
        break;
      }
    }
    return dims;
  }

  std::string_view text_;
  const std::string& name_;
  size_t at_ = 0;
};

std::string shape_text(const std::vector<uint64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text += "]";
}

}  // namespace

TokenMatrix parse_npy(std::span<const std::byte> bytes, const std::string& name) {
  const std::string_view file(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (file.size() < 10 || !file.starts_with(kMagic)) {
    throw bad_input(name + ": expected a .npy file, got another kind of file");
  }
  const auto byte = [&](size_t i) { return static_cast<uint64_t>(bytes[i]); };
  const uint64_t major = byte(6), minor = byte(7);
  if (major < 1 || major > 3 || minor != 0) {
    throw bad_input(name + ": expected .npy version 1.0, 2.0 or 3.0, got " + std::to_string(major) +
                    "." + std::to_string(minor));
  }
  const size_t start = major == 1 ? 10 : 12;
  if (file.size() < start) throw bad_input(name + ": .npy header: cut short");
  uint64_t length = byte(8) | byte(9) << 8;
  if (major > 1) length |= byte(10) << 16 | byte(11) << 24;
  if (length > kMaxHeader || length > file.size() - start) {
    throw bad_input(name + ": .npy header: expected at most " +
                    std::to_string(std::min<uint64_t>(kMaxHeader, file.size() - start)) +
                    " bytes, got " + std::to_string(length));
  }
  const Header header = HeaderParser(file.substr(start, length), name).run();

  const size_t width = header.descr == "<i4" ? 4 : header.descr == "<i8" ? 8 : 0;
  if (width == 0) {
    throw bad_input(name + ": expected token ids as int32 or int64 (<i4, <i8), got " +
                    printable(header.descr));
  }
  if (*header.fortran_order) {
    throw bad_input(name + ": expected C order, got Fortran order",
                    "save it with numpy.ascontiguousarray");
  }
  const std::vector<uint64_t>& shape = *header.shape;
  if (shape.size() != 1 && shape.size() != 2) {
    throw bad_input(name + ": expected shape [sequences, length] or [length], got " +
                    shape_text(shape));
  }
  const uint64_t rows = shape.size() == 2 ? shape[0] : 1, cols = shape.back();
  const uint64_t data = file.size() - start - length;
  if (rows == 0 || cols == 0 || cols > data / width || rows != data / width / cols ||
      rows * cols * width != data) {
    throw bad_input(name + ": expected values of shape " + shape_text(shape) +
                    " of at least one token, got " + std::to_string(data) + " bytes of " +
                    std::to_string(width) + " each");
  }
  TokenMatrix matrix{static_cast<int64_t>(rows), static_cast<int64_t>(cols), {}};
  matrix.values.resize(rows * cols);
  const std::byte* values = bytes.data() + start + length;
  for (size_t i = 0; i < matrix.values.size(); ++i) {
    int64_t value = 0;
    if (width == 4) {
      int32_t narrow;
      std::memcpy(&narrow, values + 4 * i, 4);
      value = narrow;
    } else {
      std::memcpy(&value, values + 8 * i, 8);
    }
    if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
      throw bad_input(name + ": expected token ids from 0 to 2147483647, got " +
                      std::to_string(value) + " at index " + std::to_string(i));
    }
    matrix.values[i] = static_cast<int32_t>(value);
  }
  return matrix;
}

TokenMatrix read_npy(const std::filesystem::path& path) {
  const MappedFile file(path);
  return parse_npy(file.bytes(), path.string());
}

void write_npy(const std::filesystem::path& path, const TokenMatrix& matrix) {
  std::string header = "{'descr': '<i4', 'fortran_order': False, 'shape': (";
  header += std::to_string(matrix.rows) + ", " + std::to_string(matrix.cols) + "), }";
  while ((kMagic.size() + 4 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string file(kMagic);
  file += {1, 0, static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  file += header;
  file.append(reinterpret_cast<const char*>(matrix.values.data()), matrix.values.size() * 4);
  write_file_atomic(path, std::string_view(file));
}

}  // namespace billm

// Strict JSON on top of nlohmann::json, which by itself keeps the last of duplicate keys, stops at
// a NUL byte and nests without limit. The text is read twice, first for these rules alone: the
// library's callback while parsing would do, but takes time in the square of an object's size.
#include "billm/checkpoint/json.h"

#include <set>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/utf8.h"

namespace billm {

using nlohmann::json;

std::string printable(std::string_view text) {
  constexpr size_t kLimit = 120;
  size_t size = text.size();
  if (size > kLimit) {
    size = kLimit;
    while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) --size;
  }
  // C1 controls (U+0080 to U+009F, C2 80 to C2 9F) steer terminals, too.
  const std::string valid = replace_invalid_utf8(text.substr(0, size));
  std::string result;
  for (size_t i = 0; i < valid.size(); ++i) {
    const auto byte = static_cast<unsigned char>(valid[i]);
    const bool c1 = byte == 0xc2 && static_cast<unsigned char>(valid[i + 1]) < 0xa0;
    result += byte < 0x20 || byte == 0x7f || c1 ? '?' : valid[i];
    if (c1) ++i;
  }
  if (size < text.size()) result += "...";
  return result;
}

namespace {

// Reads JSON and keeps nothing but the keys of the objects that are open.
class RuleChecker : public nlohmann::json_sax<json> {
 public:
  explicit RuleChecker(const std::string& where) : where_(where) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return open(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& key) override {
    if (!open_.back().insert(key).second) {
      throw bad_input(where_ + ": expected each key once, got \"" + printable(key) + "\" twice");
    }
    return true;
  }
  bool parse_error(std::size_t byte, const std::string&, const json::exception& error) override {
    if (dynamic_cast<const json::parse_error*>(&error) == nullptr) {
      throw bad_input(where_ + ": expected JSON, got a number out of range");
    }
    throw bad_input(where_ + ": expected JSON, got a syntax error at byte " + std::to_string(byte));
  }

 private:
  bool open() {
    if (open_.size() >= static_cast<size_t>(kMaxJsonDepth)) {
      throw bad_input(where_ + ": expected JSON of at most " + std::to_string(kMaxJsonDepth) +
                      " levels, got a deeper one");
    }
    open_.emplace_back();
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& where_;
  // One set per open object; arrays have an empty one, so that the size is the depth.
  std::vector<std::set<std::string>> open_;
};

}  // namespace

json parse_json_object(std::string_view text, const std::string& where) {
  if (text.find('\0') != std::string_view::npos) {
    throw bad_input(where + ": expected JSON, got a NUL byte at byte " +
                    std::to_string(text.find('\0')));
  }
  RuleChecker rules(where);
  json::sax_parse(text.begin(), text.end(), &rules);
  json result = json::parse(text.begin(), text.end());
  if (!result.is_object()) {
    throw bad_input(where + ": expected a JSON object, got " + result.type_name());
  }
  return result;
}

}  // namespace billm

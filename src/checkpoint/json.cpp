// Strict JSON on top of nlohmann::json, which by itself keeps the last of duplicate keys, stops at
// a NUL byte and nests without limit. The text is read twice, first for these rules alone: the
// library's callback while parsing would do, but takes time in the square of an object's size.
#include "billm/checkpoint/json.h"

#include <set>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/base/utf8.h"

namespace billm {

using nlohmann::json;

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
  json result = parse_json(text);
  if (!result.is_object()) {
    throw bad_input(where + ": expected a JSON object, got " + result.type_name());
  }
  return result;
}

}  // namespace billm

// JSON with places: see node.h.
#include "node.h"

#include <limits>

#include "billm/base/json_text.h"
#include "billm/checkpoint/json.h"
#include "unicode.h"

namespace billm::tokenizer {

void Node::fail(const std::string& expected) const {
  const std::string got = value.is_string()      ? "\"" + printable(value.get<std::string>()) + "\""
                          : value.is_primitive() ? dump_json(value)
                                                 : value.type_name();
  throw bad_input(path + ": expected " + expected + ", got " + got);
}

Node Node::at(const std::string& key) const {
  if (!value.is_object()) fail("an object");
  const auto found = value.find(key);
  if (found == value.end()) throw bad_input(path + "." + printable(key) + ": missing");
  return {*found, path + "." + printable(key)};
}

const std::string& Node::text() const {
  if (!value.is_string()) fail("a string");
  return value.get_ref<const std::string&>();
}

bool Node::flag() const {
  if (!value.is_boolean()) fail("true or false");
  return value.get<bool>();
}

size_t Node::array_size() const {
  if (!value.is_array()) fail("an array");
  return value.size();
}

int32_t Node::id() const {
  if (!value.is_number_unsigned() ||
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
    fail("a token id");
  }
  return value.get<int32_t>();
}

char32_t Node::character() const {
  const std::string& string = text();
  size_t behind = 0;
  const char32_t first = string.empty() ? 0 : next_code_point(string, behind);
  if (string.empty() || behind != string.size()) fail("one character");
  return first;
}

size_t Node::count() const {
  constexpr uint64_t kMost = 1000;
  if (!value.is_number_unsigned() || value.get<uint64_t>() > kMost) fail("a number up to 1000");
  return value.get<size_t>();
}

}  // namespace billm::tokenizer

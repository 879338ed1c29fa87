// A JSON value and its place in the file, so that every message says where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "billm/base/error.h"

namespace billm::tokenizer {

struct Node {
  const nlohmann::json& value;
  std::string path;

  // Error{kBadInput}: "<path>: expected <expected>, got <value>".
  [[noreturn]] void fail(const std::string& expected) const;
  bool has(const char* key) const { return value.contains(key) && !value[key].is_null(); }
  // Member `key`; missing is an error, as is another kind of value than each function names.
  Node at(const std::string& key) const;
  Node item(size_t index) const { return {value[index], path + "[" + std::to_string(index) + "]"}; }
  const std::string& text() const;
  bool flag() const;
  size_t array_size() const;
  const std::string& type() const { return at("type").text(); }
  int32_t id() const;          // 0 to 2^31 - 1
  char32_t character() const;  // a string of one character
  size_t count() const;        // 0 to 1000
};

// Messages of the parts that know no path get one.
template <typename Function>
auto in_place(const Node& node, Function function) {
  try {
    return function();
  } catch (const Error& error) {
    throw Error(error.code(), node.path + ": " + error.message(), error.hint());
  }
}

}  // namespace billm::tokenizer

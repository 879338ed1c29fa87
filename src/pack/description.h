// Reads the JSON description of a factor: every key is typed, and no key is left over.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"

namespace billm {

// Every method throws Error{kBadInput} starting with `where`.
class DescriptionReader {
 public:
  // Keeps a reference to `json`, an object.
  DescriptionReader(const nlohmann::json& json, std::string where)
      : json_(json), where_(std::move(where)) {}

  bool has(const char* key) const { return json_.contains(key); }
  std::string text(const char* key);
  int64_t number(const char* key, int64_t most = int64_t{1} << 30);  // 0..most
  bool flag(const char* key);
  const nlohmann::json& array(const char* key);
  // parse(text(key)), whose errors get `where`.
  template <typename Parse>
  auto named(const char* key, Parse parse) {
    const std::string name = printable(text(key));
    try {
      return parse(name);
    } catch (const Error& error) {
      throw bad_input(where_ + ": " + error.message());
    }
  }
  // To be called last: throws if a key was not read.
  void finish() const;

 private:
  const nlohmann::json* find(const char* key);

  const nlohmann::json& json_;
  const std::string where_;
  std::set<std::string> read_;
};

}  // namespace billm

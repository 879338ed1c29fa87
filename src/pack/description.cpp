// See description.h.
#include "description.h"

namespace billm {

const nlohmann::json* DescriptionReader::find(const char* key) {
  read_.insert(key);
  const auto found = json_.find(key);
  return found == json_.end() ? nullptr : &*found;
}

std::string DescriptionReader::text(const char* key) {
  const nlohmann::json* found = find(key);
  if (found == nullptr || !found->is_string()) {
    throw bad_input(where_ + ": expected a string '" + key + "' in its description");
  }
  return found->get<std::string>();
}

int64_t DescriptionReader::number(const char* key, int64_t most) {
  const nlohmann::json* found = find(key);
  // An unsigned number above 2^63 would read as negative.
  if (found == nullptr || !found->is_number_integer() || found->get<int64_t>() < 0 ||
      found->get<int64_t>() > most) {
    throw bad_input(where_ + ": expected an integer '" + key + "' in its description");
  }
  return found->get<int64_t>();
}

bool DescriptionReader::flag(const char* key) {
  const nlohmann::json* found = find(key);
  if (found == nullptr || !found->is_boolean()) {
    throw bad_input(where_ + ": expected true or false for '" + key + "' in its description");
  }
  return found->get<bool>();
}

const nlohmann::json& DescriptionReader::array(const char* key) {
  const nlohmann::json* found = find(key);
  if (found == nullptr || !found->is_array()) {
    throw bad_input(where_ + ": expected an array '" + key + "' in its description");
  }
  return *found;
}

void DescriptionReader::finish() const {
  for (const auto& [key, value] : json_.items()) {
    if (read_.count(key) != 0) continue;
    throw bad_input(where_ + ": unknown key '" + printable(key) + "' in its description",
                    "the file was written by another version of billm");
  }
}

}  // namespace billm

// JSON from and to text. Compiled once here: the library's parser and serializer take the compiler
// two seconds in every file that calls them itself.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace billm {

// For text of our own; what comes from elsewhere is read by parse_json_object (checkpoint/json.h).
// Throw nlohmann::json::exception where `text` is no JSON. Ordered: keys keep their order.
nlohmann::json parse_json(std::string_view text);
nlohmann::ordered_json parse_ordered_json(std::string_view text);
// A value that is_discarded() where `text` is no JSON.
nlohmann::json parse_json_or_discard(std::string_view text);

// In one line, or with `indent` spaces a level. Throws nlohmann::json::exception where a string is
// no UTF-8.
std::string dump_json(const nlohmann::json& value, int indent = -1);
std::string dump_json(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace billm

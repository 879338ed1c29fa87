// Strict JSON on top of nlohmann::json, which by itself keeps the last of duplicate keys, stops at
// a NUL byte and nests without limit.
#include "billm/checkpoint/json.h"

#include <set>
#include <vector>

#include "billm/base/error.h"

namespace billm {

using nlohmann::json;

std::string printable(std::string_view text) {
  constexpr size_t kLimit = 120;
  size_t size = text.size();
  if (size > kLimit) {
    size = kLimit;
    while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) --size;
  }
  std::string result(text.substr(0, size));
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  if (size < text.size()) result += "...";
  return result;
}

json parse_json_object(std::string_view text, const std::string& where) {
  if (text.find('\0') != std::string_view::npos) {
    throw bad_input(where + ": expected JSON, got a NUL byte at byte " +
                    std::to_string(text.find('\0')));
  }
  // One set per open object; arrays push an empty one, so that the size is the depth.
  std::vector<std::set<std::string>> open;
  const auto check = [&](int, json::parse_event_t event, json& value) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        if (open.size() >= static_cast<size_t>(kMaxJsonDepth)) {
          throw bad_input(where + ": expected JSON of at most " + std::to_string(kMaxJsonDepth) +
                          " levels, got a deeper one");
        }
        open.emplace_back();
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        open.pop_back();
        break;
      case json::parse_event_t::key: {
        const auto& key = value.get_ref<const std::string&>();
        if (!open.back().insert(key).second) {
          throw bad_input(where + ": expected each key once, got \"" + printable(key) + "\" twice");
        }
        break;
      }
      case json::parse_event_t::value:
        break;
    }
    return true;
  };
  json result;
  try {
    result = json::parse(text.begin(), text.end(), check);
  } catch (const json::parse_error& error) {
    throw bad_input(where + ": expected JSON, got a syntax error at byte " +
                    std::to_string(error.byte));
  } catch (const json::exception&) {
    throw bad_input(where + ": expected JSON, got a number out of range");
  }
  if (!result.is_object()) {
    throw bad_input(where + ": expected a JSON object, got " + result.type_name());
  }
  return result;
}

}  // namespace billm

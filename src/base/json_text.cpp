#include "billm/base/json_text.h"

namespace billm {

nlohmann::json parse_json(std::string_view text) { return nlohmann::json::parse(text); }

nlohmann::ordered_json parse_ordered_json(std::string_view text) {
  return nlohmann::ordered_json::parse(text);
}

nlohmann::json parse_json_or_discard(std::string_view text) {
  return nlohmann::json::parse(text, nullptr, false);
}

std::string dump_json(const nlohmann::json& value, int indent) { return value.dump(indent); }

std::string dump_json(const nlohmann::ordered_json& value, int indent) {
  return value.dump(indent);
}

}  // namespace billm

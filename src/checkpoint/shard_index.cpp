// See shard_index.h.
#include "shard_index.h"

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

constexpr size_t kMaxIndexBytes = 100'000'000;

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
}

}  // namespace

std::map<std::string, std::string> parse_shard_index(std::string_view text,
                                                     const std::string& where) {
  if (text.size() > kMaxIndexBytes) {
    throw bad_input(where + ": size: expected at most " + std::to_string(kMaxIndexBytes) +
                    " bytes, got " + std::to_string(text.size()));
  }
  const nlohmann::json index = parse_json_object(text, where);
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty()) {
    throw bad_input(where + ": weight_map: expected an object of tensor name to file name, got " +
                    (weight_map == index.end() ? "nothing"
                     : weight_map->is_object() ? "an empty one"
                                               : weight_map->type_name()));
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, value] : weight_map->items()) {
    if (!value.is_string() || !is_plain_file_name(value.get_ref<const std::string&>())) {
      throw bad_input(
          where + ": weight_map: " + printable(tensor) +
          ": expected the name of a file beside the index, got " +
          (value.is_string() ? printable(value.get_ref<const std::string&>()) : value.type_name()));
    }
    files.emplace(tensor, value.get<std::string>());
  }
  return files;
}

}  // namespace billm

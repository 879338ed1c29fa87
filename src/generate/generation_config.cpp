// See include/billm/generate/generation_config.h.
#include "billm/generate/generation_config.h"

#include <cmath>
#include <string>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/checkpoint/config.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

class Reader {
 public:
  Reader(const nlohmann::json& raw, std::string file) : raw_(raw), file_(std::move(file)) {}

  // null counts as silent, as in transformers.
  double number(const char* key, double otherwise) const {
    const auto found = find(key);
    if (found == nullptr) return otherwise;
    if (!found->is_number()) refuse(key, "a number", *found);
    return found->get<double>();
  }

  bool flag(const char* key) const {
    const auto found = find(key);
    if (found == nullptr) return false;
    if (!found->is_boolean()) refuse(key, "true or false", *found);
    return found->get<bool>();
  }

  // Some files have whole numbers as 50.0.
  int64_t count(const char* key, int64_t otherwise) const {
    constexpr double kMost = 1 << 30;
    const double value = number(key, static_cast<double>(otherwise));
    if (!(value >= 0 && value <= kMost) || value != std::floor(value)) {
      refuse(key, "a whole number from 0 on", *find(key));
    }
    return static_cast<int64_t>(value);
  }

  // One number or a list of them; negative ones name no token.
  std::vector<int64_t> ids(const char* key) const {
    const auto found = find(key);
    std::vector<int64_t> result;
    if (found == nullptr) return result;
    const nlohmann::json list = found->is_array() ? *found : nlohmann::json::array({*found});
    for (const nlohmann::json& id : list) {
      if (!id.is_number_integer()) refuse(key, "a number or a list of numbers", *found);
      if (id >= 0) result.push_back(id.get<int64_t>());
    }
    return result;
  }

 private:
  const nlohmann::json* find(const char* key) const {
    const auto found = raw_.find(key);
    return found == raw_.end() || found->is_null() ? nullptr : &*found;
  }

  [[noreturn]] void refuse(const char* key, const char* expected, const nlohmann::json& got) const {
    throw bad_input(file_ + ": " + key + ": expected " + expected + ", got " +
                    printable(dump_json(got)));
  }

  const nlohmann::json& raw_;
  const std::string file_;
};

}  // namespace

GenerationConfig read_generation_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "generation_config.json";
  const nlohmann::json raw = is_file(path) ? parse_json_object(read_text_file(path), path.string())
                                           : nlohmann::json::object();
  const Reader reader(raw, path.string());
  GenerationConfig result;
  result.temperature = reader.number("temperature", 1);
  result.sampler.repetition_penalty = reader.number("repetition_penalty", 1);
  result.sampler.temperature = reader.flag("do_sample") ? result.temperature : 0;
  result.sampler.top_k = reader.count("top_k", 50);
  result.sampler.top_p = reader.number("top_p", 1);
  result.sampler.min_p = reader.number("min_p", 0);
  try {
    SamplerSettings sampling = result.sampler;
    sampling.temperature = result.temperature;
    (void)Sampler(sampling, 1);
  } catch (const Error& error) {
    throw bad_input(path.string() + ": " + error.message());
  }
  result.eos_token_ids = reader.ids("eos_token_id");
  if (result.eos_token_ids.empty()) {
    result.eos_token_ids = read_config(directory / "config.json").eos_token_ids;
  }
  return result;
}

}  // namespace billm

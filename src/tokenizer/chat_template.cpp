// Finding a model's template: see include/billm/tokenizer/chat_template.h.
#include "billm/tokenizer/chat_template.h"

#include <optional>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/utf8.h"
#include "billm/checkpoint/json.h"
#include "chat_rows.h"
#include "config_files.h"
#include "jinja_shape.h"

namespace billm {
namespace {

using nlohmann::json;
using tokenizer::ChatRow;

constexpr std::string_view kGap = "{{GAP}}", kSystem = "@SYSTEM@";

// Matches `shape` from the start against `pattern`; a gap stands for any text, kSystem for the
// default system message. Nothing if it does not match, else that message ("" if there is none).
std::optional<std::string> match(std::string_view shape, std::string_view pattern) {
  const size_t gap = std::min(pattern.find(kGap), pattern.find(kSystem));
  if (gap == std::string_view::npos) {
    return shape == pattern ? std::optional<std::string>("") : std::nullopt;
  }
  if (shape.substr(0, gap) != pattern.substr(0, gap)) return std::nullopt;
  const bool system = pattern.substr(gap).starts_with(kSystem);
  const std::string_view rest = pattern.substr(gap + (system ? kSystem : kGap).size());
  const std::string_view next =
      rest.substr(0, std::min({rest.find(kGap), rest.find(kSystem), rest.size()}));
  for (size_t end = shape.find(next, gap); end != std::string_view::npos;
       end = shape.find(next, end + 1)) {
    const std::string_view inside = shape.substr(gap, end - gap);
    // The message is one literal's text, and shown as the shape spells it.
    if (system && inside.find('\'') != std::string_view::npos &&
        inside.find("\\'") == std::string_view::npos) {
      return std::nullopt;
    }
    if (const auto found = match(shape.substr(end), rest)) {
      return system ? std::string(inside) : *found;
    }
  }
  return std::nullopt;
}

// A literal's text of a shape: \n and the like become what they mean.
std::string unescaped(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      result += text[i];
      continue;
    }
    const char c = text[++i];
    result += c == 'n' ? '\n' : c == 't' ? '\t' : c;
  }
  return result;
}

std::string known_names() {
  std::string names;
  for (const ChatRow& row : tokenizer::chat_rows()) {
    if (names.ends_with(row.name)) continue;
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return names;
}

// A special token of tokenizer_config.json or special_tokens_map.json; "" if neither names it.
std::string special_token(const tokenizer::ConfigFiles& files, const char* key) {
  for (const json* object : {&files.config, &files.special_tokens_map}) {
    const auto found = object->find(key);
    if (found == object->end() || found->is_null()) continue;
    const json& text = found->is_object() ? found->value("content", json()) : *found;
    if (text.is_string()) return text.get<std::string>();
    throw bad_input(files.where + ": " + key + ": expected a token, got " +
                    printable(found->dump()));
  }
  return "";
}

// The template's text: a string, or the one called "default" of a list of named ones.
std::optional<std::string> configured_template(const tokenizer::ConfigFiles& files) {
  const auto found = files.config.find("chat_template");
  if (found == files.config.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const json& entry : *found) {
      if (!entry.is_object() || entry.value("name", json()) != "default") continue;
      const json text = entry.value("template", json());
      if (text.is_string()) return text.get<std::string>();
    }
  }
  throw bad_input(files.where +
                  ": chat_template: expected a text, or a list of named ones with a "
                  "\"default\" among them");
}

}  // namespace

ChatTemplate ChatTemplate::from_directory(const std::filesystem::path& directory) {
  const tokenizer::ConfigFiles files = tokenizer::read_config_files(directory);
  const std::string bos = special_token(files, "bos_token"),
                    eos = special_token(files, "eos_token");
  const std::filesystem::path file = directory / "chat_template.jinja";
  if (is_file(file)) return from_text(read_text_file(file), bos, eos, file.string());
  const auto text = configured_template(files);
  if (!text) {
    throw bad_input(directory.string() +
                        ": expected a chat template (tokenizer_config.json or "
                        "chat_template.jinja), found none",
                    "this model was not made to chat; leave out --chat");
  }
  return from_text(*text, bos, eos, files.where + ": chat_template");
}

ChatTemplate ChatTemplate::from_text(std::string_view jinja, const std::string& bos,
                                     const std::string& eos, const std::string& where) {
  const std::string shape = tokenizer::jinja_shape(jinja);
  for (const ChatRow& row : tokenizer::chat_rows()) {
    const auto system = match(shape, tokenizer::jinja_shape(row.jinja));
    if (!system) continue;
    const std::pair<const char*, const std::string&> tokens[] = {{"bos_token", bos},
                                                                 {"eos_token", eos}};
    for (const auto& [name, token] : tokens) {
      if (shape.find(name) == std::string::npos || !token.empty()) continue;
      throw bad_input(where + ": expected the " + name +
                      " that it uses in tokenizer_config.json, found none");
    }
    ChatTemplate result;
    result.row_ = &row;
    result.bos_ = bos;
    result.eos_ = eos;
    result.default_system_ = unescaped(*system);
    result.end_ = *row.end_of_message == '\0' ? eos : row.end_of_message;
    result.where_ = where;
    return result;
  }
  throw bad_input(where + ": expected one of the templates that billm knows (" + known_names() +
                      "), got another",
                  "leave out --chat and give the whole prompt as the model wants it");
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages) const {
  const bool has_system = !messages.empty() && messages[0].role == ChatRole::kSystem;
  if (has_system && !row_->takes_system) {
    throw bad_input(where_ + ": this template (" + name() + ") takes no system message",
                    "leave out --system");
  }
  for (size_t i = 0; i + (has_system ? 1 : 0) < messages.size(); ++i) {
    const ChatRole expected = i % 2 == 0 ? ChatRole::kUser : ChatRole::kAssistant;
    if (messages[i + (has_system ? 1 : 0)].role == expected) continue;
    throw Error(ErrorCode::kFailure, "chat: expected user and assistant in turn");
  }
  return row_->render({bos_, eos_, default_system_}, messages);
}

const char* ChatTemplate::name() const { return row_->name; }

}  // namespace billm

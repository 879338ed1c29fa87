// Chat templates: messages -> the text that a model was trained to continue.
//
// A model's template is a Jinja program (tokenizer_config.json "chat_template", or
// chat_template.jinja). billm does not run it: it recognizes the common ones by what is
// characteristic of them and renders those itself, byte for byte as transformers'
// apply_chat_template(messages, add_generation_prompt=True); any other is refused.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace billm {

enum class ChatRole : unsigned char { kSystem, kUser, kAssistant };

struct ChatMessage {
  ChatRole role;
  std::string text;
};

namespace tokenizer {
struct ChatRow;
}

class ChatTemplate {
 public:
  // Throws Error{kBadInput} if the directory has no template, or one that is not known.
  static ChatTemplate from_directory(const std::filesystem::path& directory);
  // From the Jinja program and the tokenizer's special tokens ("" if it has none); `where` stands
  // in error messages.
  static ChatTemplate from_text(std::string_view jinja, const std::string& bos,
                                const std::string& eos, const std::string& where);

  // `messages`: an optional system message, then user and assistant in turn, the last of a user.
  // Throws Error{kBadInput} for a system message where the template takes none.
  std::string render(std::span<const ChatMessage> messages) const;

  // The row of the table (src/tokenizer/chat_rows.cpp).
  const char* name() const;
  // The special token that ends a message; it is to end an answer whatever the model's files say.
  const std::string& end_of_message() const { return end_; }

 private:
  ChatTemplate() = default;

  const tokenizer::ChatRow* row_ = nullptr;
  std::string bos_, eos_, default_system_, end_, where_;
};

}  // namespace billm

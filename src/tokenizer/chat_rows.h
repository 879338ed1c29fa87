// The table of chat templates that billm renders itself (include/billm/tokenizer/chat_template.h).
#pragma once

#include <span>
#include <string>

#include "billm/tokenizer/chat_template.h"

namespace billm::tokenizer {

struct ChatContext {
  const std::string &bos, &eos;
  const std::string& default_system;  // "" if the template has none
};

struct ChatRow {
  const char* name;  // rows with the same name are spellings of one template
  // The Jinja program, in any layout (jinja_shape.h). {{GAP}} stands for any part that only tool
  // calls reach, @SYSTEM@ for the text of the system message where the chat has none.
  const char* jinja;
  const char* end_of_message;  // a special token; "": the tokenizer's EOS
  bool takes_system;
  std::string (*render)(const ChatContext& context, std::span<const ChatMessage> messages);
};

std::span<const ChatRow> chat_rows();

// str.strip() of Python: Unicode's white space off both ends.
std::string python_strip(std::string_view text);

}  // namespace billm::tokenizer

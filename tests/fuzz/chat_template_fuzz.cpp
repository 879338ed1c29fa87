// Any text is either a chat template that is known, which then renders a conversation, or an error.
#include <string>

#include "billm/tokenizer/chat_template.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    const auto known = ChatTemplate::from_text(fuzz::text_of(data, size), "<s>", "</s>", "input");
    const ChatMessage messages[] = {
        {ChatRole::kUser, "a"}, {ChatRole::kAssistant, "b"}, {ChatRole::kUser, "c\n"}};
    known.render(messages);
  });
}

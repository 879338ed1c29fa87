// Chats rendered as transformers renders them, and templates that are refused.
#include "billm/tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "src/tokenizer/chat_rows.h"
#include "src/tokenizer/jinja_shape.h"
#include "support/environment.h"

namespace billm {
namespace {

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_EQ(error.message().find('\n'), std::string::npos);
    return error.message();
  }
  return "no error";
}

std::vector<ChatMessage> messages_of(const nlohmann::json& chat) {
  const std::map<std::string, ChatRole> roles = {{"system", ChatRole::kSystem},
                                                 {"user", ChatRole::kUser},
                                                 {"assistant", ChatRole::kAssistant}};
  std::vector<ChatMessage> messages;
  for (const auto& message : chat) {
    messages.push_back({roles.at(message[0].get<std::string>()), message[1].get<std::string>()});
  }
  return messages;
}

// Midnight between the two renderings would change the date of one row: then both run again.
void expect_agreement(const std::string& python, const std::string& demo, int attempts) {
  const nlohmann::json cases = parse_json(test::run_python(python, "chat_reference.py", {demo}));
  std::set<std::string> tested;
  for (const nlohmann::json& one : cases) {
    const std::string name = one["name"].get<std::string>();
    SCOPED_TRACE(name + ": " + one["template"].get<std::string>().substr(0, 200));
    const ChatTemplate chat_template =
        ChatTemplate::from_text(one["template"].get<std::string>(), one["bos"].get<std::string>(),
                                one["eos"].get<std::string>(), "file");
    EXPECT_EQ(chat_template.name(), name);
    tested.insert(name);
    for (const nlohmann::json& chat : one["chats"]) {
      const std::vector<ChatMessage> messages = messages_of(chat["messages"]);
      if (chat["expected"].is_null()) {
        EXPECT_NE(message_of([&] { chat_template.render(messages); }).find("no system message"),
                  std::string::npos);
        continue;
      }
      const std::string expected = chat["expected"].get<std::string>();
      if (attempts > 1 && name == "llama3.2" && chat_template.render(messages) != expected) {
        return expect_agreement(python, demo, attempts - 1);
      }
      EXPECT_EQ(chat_template.render(messages), expected);
    }
  }
  for (const tokenizer::ChatRow& row : tokenizer::chat_rows()) {
    EXPECT_TRUE(tested.count(row.name)) << row.name;
  }
}

TEST(ChatTemplate, AgreesWithTransformers) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(demo, "BILLM_DEMO_MODEL");
  expect_agreement(python, demo, 2);
}

constexpr const char* kChatml =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ "
    "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' "
    "}}{% endif %}";

std::string from_text(const std::string& text, const std::string& bos = "<s>") {
  return message_of([&] { ChatTemplate::from_text(text, bos, "</s>", "FILE"); });
}

std::string changed(const std::string& from, const std::string& to) {
  std::string text = kChatml;
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos);
  return text.replace(at, from.size(), to);
}

// Each of these would be rendered differently by transformers.
TEST(ChatTemplate, WhatIsOnlySimilarIsRefused) {
  ASSERT_EQ(from_text(kChatml), "no error");
  const std::vector<std::string> others = {
      "",
      "{{ messages }}",
      std::string(kChatml) + "x",
      std::string(kChatml) + "\n\n\n",
      "\n" + std::string(kChatml),
      changed("<|im_end|>", "<|im_end|> "),
      changed("'\\n'}}", "''}}"),
      changed("'\\n'}}", "'\\n'}}\n"),
      changed("message['content']", "message['content'] | trim"),
      changed("{% for", "{{ bos_token }}{% for"),
      changed("{% for", "{% if messages[0].role != 'system' %}{{ 'You' }}{% endif %}{% for"),
      changed("assistant\\n", "assistant\\n<think>\\n"),
      changed("{% endif %}", "{% else %}{{ eos_token }}{% endif %}"),
      changed("{% endfor %}", "{% endfor"),
      changed("'\\n'", "'\\n"),
      changed("'\\n'", "'\\x0a'"),
      changed("%}{{", "+%}{{"),
  };
  for (const std::string& text : others) {
    EXPECT_EQ(
        from_text(text),
        "FILE: expected one of the templates that billm knows (chatml, qwen2.5, qwen3, llama2, "
        "mistral-v1, mistral-v3, zephyr, llama3, llama3.1, llama3.2), got another")
        << text;
  }
}

TEST(ChatTemplate, LayoutDoesNotMatter) {
  for (const std::string& text :
       {changed("['role']", "[\"role\"]"), changed("['role']", ".role"),
        changed("{% for", "{#- a comment -#}\n  {%- for"),
        changed("{% endfor %}", "\n{%- endfor %}"), changed(" %}{{'", " -%}\n   {{'"),
        std::string(kChatml) + "\n", changed("{% for", "  {% for"),
        changed("'<|im_end|>' + '\\n'", "\"<|im_end|>\n\"")}) {
    EXPECT_EQ(from_text(text), "no error") << text;
  }
}

TEST(ChatTemplate, TokensThatItUsesMustBeThere) {
  const std::string row = tokenizer::chat_rows()[5].jinja;
  EXPECT_EQ(from_text(row), "no error");
  EXPECT_EQ(from_text(row, ""),
            "FILE: expected the bos_token that it uses in tokenizer_config.json, found none");
}

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

TEST(ChatTemplate, WhereItIsRead) {
  const test::TemporaryDirectory directory;
  const auto read = [&] {
    return message_of([&] { ChatTemplate::from_directory(directory.path()); });
  };
  EXPECT_NE(read().find("expected a chat template"), std::string::npos);
  const auto config = directory.path() / "tokenizer_config.json";
  const auto configure = [&](const nlohmann::json& chat_template) {
    write(config, dump_json(nlohmann::json({{"chat_template", chat_template}})));
  };
  configure(nullptr);
  EXPECT_NE(read().find("expected a chat template"), std::string::npos);
  configure(kChatml);
  EXPECT_EQ(read(), "no error");
  configure({{{"name", "tools"}, {"template", "x"}}, {{"name", "default"}, {"template", kChatml}}});
  EXPECT_EQ(read(), "no error");
  configure({{{"name", "tools"}, {"template", kChatml}}});
  EXPECT_NE(read().find("chat_template: expected a text"), std::string::npos);
  configure(7);
  EXPECT_NE(read().find("chat_template: expected a text"), std::string::npos);
  // The file of its own counts, as in transformers.
  write(directory.path() / "chat_template.jinja", kChatml);
  EXPECT_EQ(read(), "no error");
  configure(kChatml);
  write(directory.path() / "chat_template.jinja", "another");
  EXPECT_NE(read().find("chat_template.jinja: expected one of"), std::string::npos);
}

TEST(ChatTemplate, Shapes) {
  EXPECT_EQ(tokenizer::jinja_shape("{%- if a['b'] %}\n  x\n  {% endif %}\n"),
            "{%if a . b%}  x\n{%endif%}");
  EXPECT_EQ(tokenizer::jinja_shape("{{ 'a' + \"b'\\n\" + c }}\n"), "{{'ab\\'\\n' + c}}");
  EXPECT_EQ(tokenizer::jinja_shape("{{ '}}' }}"), "{{'}}'}}");
  for (const char* bad : {"{{", "{{ ' }}", "{% x", "{# x", "{{ '\\q' }}", "{%+ if %}"}) {
    EXPECT_EQ(tokenizer::jinja_shape(bad), "") << bad;
  }
}

}  // namespace
}  // namespace billm

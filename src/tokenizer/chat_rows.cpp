// See chat_rows.h. Each row's program is what the named models publish; rendering is tested against
// transformers running it.
#include "chat_rows.h"

#include <array>
#include <ctime>
#include <string_view>

#include "chat_programs.h"

namespace billm::tokenizer {
namespace {

using Messages = std::span<const ChatMessage>;

const char* role_name(ChatRole role) {
  constexpr const char* kNames[] = {"system", "user", "assistant"};
  return kNames[static_cast<size_t>(role)];
}

bool has_system(Messages messages) {
  return !messages.empty() && messages[0].role == ChatRole::kSystem;
}

std::string chatml_message(const char* role, std::string_view text) {
  return std::string("<|im_start|>") + role + "\n" + std::string(text) + "<|im_end|>\n";
}

// With a default system message where the template has one.
std::string chatml(const ChatContext& context, Messages messages) {
  std::string result;
  if (!has_system(messages) && !context.default_system.empty()) {
    result = chatml_message("system", context.default_system);
  }
  for (const ChatMessage& m : messages) result += chatml_message(role_name(m.role), m.text);
  return result + "<|im_start|>assistant\n";
}

std::string strip_newlines(std::string_view text, bool left, bool right) {
  while (left && text.starts_with('\n')) text.remove_prefix(1);
  while (right && text.ends_with('\n')) text.remove_suffix(1);
  return std::string(text);
}

// Answers before the last question are given without what the model thought.
std::string qwen3(const ChatContext&, Messages messages) {
  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  size_t last_query = messages.size() - 1;
  for (size_t i = messages.size(); i-- > 0;) {
    const ChatMessage& m = messages[i];
    if (m.role != ChatRole::kUser ||
        (m.text.starts_with("<tool_response>") && m.text.ends_with("</tool_response>"))) {
      continue;
    }
    last_query = i;
    break;
  }
  std::string result;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& m = messages[i];
    if (m.role != ChatRole::kAssistant) {
      result += chatml_message(role_name(m.role), m.text);
      continue;
    }
    std::string text = m.text, thought;
    if (const size_t close = m.text.rfind(kClose); close != std::string::npos) {
      text = strip_newlines(std::string_view(m.text).substr(close + kClose.size()), true, false);
      thought =
          strip_newlines(std::string_view(m.text).substr(0, m.text.find(kClose)), false, true);
      if (const size_t open = thought.rfind(kOpen); open != std::string::npos) {
        thought.erase(0, open + kOpen.size());
      }
      thought = strip_newlines(thought, true, false);
    }
    if (i > last_query && !thought.empty()) {
      text = "<think>\n" + strip_newlines(thought, true, true) + "\n</think>\n\n" +
             strip_newlines(text, true, false);
    }
    result += chatml_message("assistant", text);
  }
  return result + "<|im_start|>assistant\n";
}

std::string llama2(const ChatContext& context, Messages messages) {
  std::string result, system;
  const size_t first = has_system(messages) ? 1 : 0;
  if (first == 1) system = "<<SYS>>\n" + messages[0].text + "\n<</SYS>>\n\n";
  for (size_t i = first; i < messages.size(); ++i) {
    const std::string text = python_strip((i == first ? system : "") + messages[i].text);
    result += messages[i].role == ChatRole::kUser ? context.bos + "[INST] " + text + " [/INST]"
                                                  : " " + text + " " + context.eos;
  }
  return result;
}

// `after`: behind each answer's end.
std::string mistral1(const ChatContext& context, Messages messages, const char* after) {
  std::string result = context.bos;
  for (const ChatMessage& m : messages) {
    result +=
        m.role == ChatRole::kUser ? "[INST] " + m.text + " [/INST]" : m.text + context.eos + after;
  }
  return result;
}
std::string mistral1_spaced(const ChatContext& context, Messages messages) {
  return mistral1(context, messages, " ");
}
std::string mistral1_plain(const ChatContext& context, Messages messages) {
  return mistral1(context, messages, "");
}

// The system message goes into the last question. `space` follows [INST] and precedes answers,
// which are stripped then.
std::string mistral3(const ChatContext& context, Messages messages, bool space) {
  const std::string gap = space ? " " : "";
  std::string result = context.bos;
  for (size_t i = has_system(messages) ? 1 : 0; i < messages.size(); ++i) {
    const ChatMessage& m = messages[i];
    if (m.role == ChatRole::kAssistant) {
      result += gap + (space ? python_strip(m.text) : m.text) + context.eos;
      continue;
    }
    const bool last = has_system(messages) && i + 1 == messages.size();
    result += "[INST]" + gap + (last ? messages[0].text + "\n\n" : "") + m.text + "[/INST]";
  }
  return result;
}
std::string mistral3_spaced(const ChatContext& context, Messages messages) {
  return mistral3(context, messages, true);
}
std::string mistral3_tight(const ChatContext& context, Messages messages) {
  return mistral3(context, messages, false);
}

std::string zephyr(const ChatContext& context, Messages messages) {
  std::string result;
  for (const ChatMessage& m : messages) {
    result += std::string("<|") + role_name(m.role) + "|>\n" + m.text + context.eos + "\n";
  }
  return result + "<|assistant|>\n";
}

std::string llama3_message(const char* role, const std::string& text) {
  return std::string("<|start_header_id|>") + role + "<|end_header_id|>\n\n" + text + "<|eot_id|>";
}

constexpr const char* kLlama3Answer = "<|start_header_id|>assistant<|end_header_id|>\n\n";

std::string llama3(const ChatContext& context, Messages messages) {
  std::string result = context.bos;
  for (const ChatMessage& m : messages) {
    result += llama3_message(role_name(m.role), python_strip(m.text));
  }
  return result + kLlama3Answer;
}

// A system message always, which states a date.
std::string llama31_dated(const ChatContext& context, Messages messages, const std::string& date) {
  const bool system = has_system(messages);
  std::string result =
      context.bos +
      llama3_message("system", "Cutting Knowledge Date: December 2023\nToday Date: " + date +
                                   "\n\n" + (system ? python_strip(messages[0].text) : ""));
  for (const ChatMessage& m : messages.subspan(system ? 1 : 0)) {
    result += llama3_message(role_name(m.role), python_strip(m.text));
  }
  return result + kLlama3Answer;
}
std::string llama31(const ChatContext& context, Messages messages) {
  return llama31_dated(context, messages, "26 Jul 2024");
}
std::string llama32(const ChatContext& context, Messages messages) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 32> date{};
  std::strftime(date.data(), date.size(), "%d %b %Y", &local);
  return llama31_dated(context, messages, date.data());
}

constexpr ChatRow kRows[] = {
    {"chatml", kChatml, "<|im_end|>", true, chatml},
    {"chatml", kChatmlDefined, "<|im_end|>", true, chatml},
    {"chatml", kChatmlSystem, "<|im_end|>", true, chatml},
    {"qwen2.5", kQwen25, "<|im_end|>", true, chatml},
    {"qwen3", kQwen3, "<|im_end|>", true, qwen3},
    {"llama2", kLlama2, "", true, llama2},
    {"mistral-v1", kMistral1Spaced, "", false, mistral1_spaced},
    {"mistral-v1", kMistral1Plain, "", false, mistral1_plain},
    {"mistral-v3", kMistral3, "", true, mistral3_spaced},
    {"mistral-v3", kMistralNemo, "", true, mistral3_tight},
    {"zephyr", kZephyr, "", true, zephyr},
    {"llama3", kLlama3, "<|eot_id|>", true, llama3},
    {"llama3", kLlama3Asked, "<|eot_id|>", true, llama3},
    {"llama3.1", kLlama31, "<|eot_id|>", true, llama31},
    {"llama3.2", kLlama32, "<|eot_id|>", true, llama32},
};

// Python's str.isspace() characters in UTF-8.
constexpr std::string_view kSpaces[] = {
    "\t",           "\n",           "\v",           "\f",           "\r",           " ",
    "\x1c",         "\x1d",         "\x1e",         "\x1f",         "\xc2\x85",     "\xc2\xa0",
    "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84",
    "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a",
    "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};

}  // namespace

std::span<const ChatRow> chat_rows() { return kRows; }

std::string python_strip(std::string_view text) {
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view space : kSpaces) {
      if (text.starts_with(space)) {
        text.remove_prefix(space.size());
        again = true;
      } else if (text.ends_with(space)) {
        text.remove_suffix(space.size());
        again = true;
      }
    }
  }
  return std::string(text);
}

}  // namespace billm::tokenizer

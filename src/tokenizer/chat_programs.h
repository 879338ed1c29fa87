// The Jinja programs of the chat templates that billm knows, as far as a chat without tools runs
// them, in a layout of their own (jinja_shape.h). What {{GAP}} and @SYSTEM@ mean: chat_rows.h.
#pragma once

namespace billm::tokenizer {

#define BILLM_CHATML_MESSAGE \
  R"({{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }})"
#define BILLM_CHATML_ANSWER \
  R"({% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})"

inline constexpr const char* kChatml =
    "{% for message in messages %}" BILLM_CHATML_MESSAGE "{% endfor %}" BILLM_CHATML_ANSWER;

inline constexpr const char* kChatmlDefined =
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif "
    "%}"
    "{% for message in messages %}" BILLM_CHATML_MESSAGE "{% endfor %}" BILLM_CHATML_ANSWER;

// SmolLM2, Qwen1.5, Qwen2.
inline constexpr const char* kChatmlSystem =
    "{% for message in messages %}"
    "{% if loop.first and messages[0].role != 'system' %}"
    R"({{ '<|im_start|>system\n@SYSTEM@<|im_end|>\n' }})"
    "{% endif %}" BILLM_CHATML_MESSAGE "{% endfor %}" BILLM_CHATML_ANSWER;

inline constexpr const char* kQwen25 =
    "{% if tools %}{{GAP}}{% else %}"
    "{% if messages[0].role == 'system' %}"
    R"({{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }})"
    R"({% else %}{{ '<|im_start|>system\n@SYSTEM@<|im_end|>\n' }})"
    "{% endif %}{% endif %}"
    "{% for message in messages %}"
    R"({% if (message.role == "user") or (message.role == "system" and not loop.first) or )"
    R"((message.role == "assistant" and not message.tool_calls) %})" BILLM_CHATML_MESSAGE
    R"({% elif message.role == "assistant" %}{{GAP}}{% endfor %})" BILLM_CHATML_ANSWER;

inline constexpr const char* kQwen3 =
    "{% if tools %}{{GAP}}{% else %}"
    "{% if messages[0].role == 'system' %}"
    R"({{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }})"
    "{% endif %}{% endif %}"
    "{% set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}"
    "{% for message in messages[::-1] %}"
    "{% set index = (messages|length - 1) - loop.index0 %}"
    R"({% if ns.multi_step_tool and message.role == "user" and )"
    "not(message.content.startswith('<tool_response>') and "
    "message.content.endswith('</tool_response>')) %}"
    "{% set ns.multi_step_tool = false %}{% set ns.last_query_index = index %}"
    "{% endif %}{% endfor %}"
    "{% for message in messages %}"
    R"({% if (message.role == "user") or (message.role == "system" and not loop.first) %})" BILLM_CHATML_MESSAGE
    R"({% elif message.role == "assistant" %})"
    "{% set content = message.content %}{% set reasoning_content = '' %}"
    "{% if message.reasoning_content is defined and message.reasoning_content is not none %}"
    "{% set reasoning_content = message.reasoning_content %}"
    "{% else %}{% if '</think>' in message.content %}"
    R"({% set content = message.content.split('</think>')[-1].lstrip('\n') %})"
    R"({% set reasoning_content = message.content.split('</think>')[0].rstrip('\n'))"
    R"(.split('<think>')[-1].lstrip('\n') %})"
    "{% endif %}{% endif %}"
    "{% if loop.index0 > ns.last_query_index %}"
    "{% if loop.last or (not loop.last and reasoning_content) %}"
    R"({{ '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + )"
    R"('\n</think>\n\n' + content.lstrip('\n') }})"
    R"({% else %}{{ '<|im_start|>' + message.role + '\n' + content }}{% endif %})"
    R"({% else %}{{ '<|im_start|>' + message.role + '\n' + content }}{% endif %})"
    R"({% if message.tool_calls %}{{GAP}}{{ '<|im_end|>\n' }})"
    R"({% elif message.role == "tool" %}{{GAP}}{% endif %})"
    "{% endfor %}{% if add_generation_prompt %}"
    R"({{ '<|im_start|>assistant\n' }})"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    R"({{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %})";

#undef BILLM_CHATML_MESSAGE
#undef BILLM_CHATML_ANSWER

#define BILLM_ALTERNATE                                         \
  "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}" \
  "{{ raise_exception('Conversation roles must alternate "      \
  "user/assistant/user/assistant/...') }}{% endif %}"

// LLaMA-2 chat, and others with its format.
inline constexpr const char* kLlama2 =
    "{% if messages[0].role == 'system' %}"
    "{% set loop_messages = messages[1:] %}{% set system_message = messages[0].content %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}" BILLM_ALTERNATE
    "{% if loop.index0 == 0 and system_message != false %}"
    R"({% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message.content %})"
    "{% else %}{% set content = message.content %}{% endif %}"
    "{% if message.role == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message.role == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}";

#define BILLM_MISTRAL1(ANSWER)                                                      \
  "{{ bos_token }}{% for message in messages %}" BILLM_ALTERNATE                    \
  "{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"   \
  "{% elif message.role == 'assistant' %}" ANSWER                                   \
  "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}" \
  "{% endif %}{% endfor %}"

// Mistral-7B-Instruct-v0.1 and v0.2.
inline constexpr const char* kMistral1Spaced =
    BILLM_MISTRAL1("{{ message.content + eos_token + ' ' }}");
inline constexpr const char* kMistral1Plain = BILLM_MISTRAL1("{{ message.content + eos_token }}");

#undef BILLM_MISTRAL1
#undef BILLM_ALTERNATE

#define BILLM_MISTRAL3(INST, ANSWER)                                                       \
  "{% if messages[0].role == 'system' %}"                                                  \
  "{% set system_message = messages[0].content %}{% set loop_messages = messages[1:] %}"   \
  "{% else %}{% set loop_messages = messages %}{% endif %}"                                \
  "{% if not tools is defined %}{% set tools = none %}{% endif %}"                         \
  "{% set user_messages = loop_messages | selectattr('role', 'equalto', 'user') | list %}" \
  "{{GAP}}{{ bos_token }}{% for message in loop_messages %}"                               \
  "{% if message.role == 'user' %}"                                                        \
  "{% if tools is not none and (message == user_messages[-1]) %}{{GAP}}{% endif %}"        \
  "{% if loop.last and system_message is defined %}"                                       \
  "{{ '" INST                                                                              \
  "' + system_message + '\\n\\n' + message.content + '[/INST]' }}"                         \
  "{% else %}{{ '" INST                                                                    \
  "' + message.content + '[/INST]' }}{% endif %}"                                          \
  "{{GAP}}{% elif message.role == 'assistant' %}" ANSWER "{{GAP}}{% endfor %}"

// Mistral-7B-Instruct-v0.3 and Mistral-Nemo.
inline constexpr const char* kMistral3 =
    BILLM_MISTRAL3("[INST] ", "{{ ' ' + message.content|trim + eos_token }}");
inline constexpr const char* kMistralNemo =
    BILLM_MISTRAL3("[INST]", "{{ message.content + eos_token }}");

#undef BILLM_MISTRAL3

// Zephyr, TinyLlama chat. The line breaks behind {{ }} are put out.
inline constexpr const char* kZephyr =
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\\n' + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
    "{% endfor %}";

#define BILLM_LLAMA3_MESSAGE                                            \
  "'<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + " \
  "message.content | trim + '<|eot_id|>'"
#define BILLM_LLAMA3_ANSWER "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
#define BILLM_LLAMA3                                                            \
  "{% set loop_messages = messages %}{% for message in loop_messages %}"        \
  "{% set content = " BILLM_LLAMA3_MESSAGE                                      \
  " %}"                                                                         \
  "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}" \
  "{{ content }}{% endfor %}"

inline constexpr const char* kLlama3 = BILLM_LLAMA3 BILLM_LLAMA3_ANSWER;
inline constexpr const char* kLlama3Asked =
    BILLM_LLAMA3 "{% if add_generation_prompt %}" BILLM_LLAMA3_ANSWER "{% endif %}";

#define BILLM_LLAMA31(DATE, ENVIRONMENT)                                                       \
  "{{ bos_token }}"                                                                            \
  "{% if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}"                  \
  "{% if not tools_in_user_message is defined %}{% set tools_in_user_message = true %}"        \
  "{% endif %}{% if not date_string is defined %}" DATE                                        \
  "{% endif %}"                                                                                \
  "{% if not tools is defined %}{% set tools = none %}{% endif %}"                             \
  "{% if messages[0].role == 'system' %}{% set system_message = messages[0].content|trim %}"   \
  "{% set messages = messages[1:] %}{% else %}{% set system_message = '' %}{% endif %}"        \
  "{{ '<|start_header_id|>system<|end_header_id|>\\n\\n' }}" ENVIRONMENT                       \
  "{{ 'Cutting Knowledge Date: December 2023\\n' }}"                                           \
  "{{ 'Today Date: ' + date_string + '\\n\\n' }}"                                              \
  "{% if tools is not none and not tools_in_user_message %}{{GAP}}"                            \
  "{{ system_message }}{{ '<|eot_id|>' }}"                                                     \
  "{% if tools_in_user_message and not tools is none %}{{GAP}}"                                \
  "{% for message in messages %}"                                                              \
  "{% if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message)" \
  " %}{{ " BILLM_LLAMA3_MESSAGE                                                                \
  " }}{% elif 'tool_calls' in message %}{{GAP}}{% endfor %}"                                   \
  "{% if add_generation_prompt %}" BILLM_LLAMA3_ANSWER "{% endif %}"

// Llama-3.1 and 3.3, which state a fixed day; Llama-3.2, which states the present one.
inline constexpr const char* kLlama31 =
    BILLM_LLAMA31("{% set date_string = '26 Jul 2024' %}",
                  "{% if builtin_tools is defined or tools is not none %}"
                  "{{ 'Environment: ipython\\n' }}{% endif %}"
                  "{% if builtin_tools is defined %}{{GAP}}{% endif %}");
inline constexpr const char* kLlama32 = BILLM_LLAMA31(
    "{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}",
    "{% if tools is not none %}{{ 'Environment: ipython\\n' }}{% endif %}");

#undef BILLM_LLAMA31
#undef BILLM_LLAMA3
#undef BILLM_LLAMA3_ANSWER
#undef BILLM_LLAMA3_MESSAGE

}  // namespace billm::tokenizer

#!/usr/bin/env python3
"""Chats as transformers renders them.

Usage: chat_reference.py DEMO_MODEL   (a directory whose template is used, too)

Prints one JSON list of {"name", "template", "bos", "eos", "chats": [{"messages": [[role, text]],
"expected": text, or null where the template raises}]}.

The templates are in the form in which models publish them, with the branches of tool calls cut
short.
"""

import json
import sys

from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

CHATML_MESSAGE = ("{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
                  "'\\n'}}")
CHATML_ANSWER = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
ALTERNATE = ("{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
             "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}")

CHATML = "{% for message in messages %}" + CHATML_MESSAGE + "{% endfor %}" + CHATML_ANSWER
CHATML_DEFINED = ("{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false "
                  "%}{% endif %}" + CHATML)
QWEN2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
         "'<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}" +
         CHATML_MESSAGE + "{% endfor %}" + CHATML_ANSWER)
# A fine-tuned model's own system message, with every character that needs care.
QWEN2_OTHER = QWEN2.replace("You are a helpful assistant.", "It\\'s \"me\",\\na \\\\ \u00e9")

QWEN25 = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen. You help.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {{- message.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

QWEN3 = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in message.content %}
                {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
                {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {{- message.tool_calls | tojson }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {{- message.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""

LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set "
          "system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
          "{% set system_message = false %}{% endif %}{% for message in loop_messages %}" +
          ALTERNATE + "{% if loop.index0 == 0 and system_message != false %}{% set content = "
          "'<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% "
          "set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ "
          "bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == "
          "'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")

MISTRAL = ("{{ bos_token }}{% for message in messages %}" + ALTERNATE +
           "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% "
           "elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ "
           "raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor "
           "%}")
MISTRAL_01 = MISTRAL.replace("eos_token}}", "eos_token + ' ' }}")

NEMO = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- This block checks for alternating messages. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS][" }}
            {{- "[/AVAILABLE_TOOLS]" }}
            {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif (message.tool_calls is defined and message.tool_calls is not none) %}
        {{- "[TOOL_CALLS][" }}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""
MISTRAL_03 = NEMO.replace('"[INST]"', '"[INST] "').replace(
    'message["content"] + eos_token', '" " + message["content"]|trim + eos_token')

ZEPHYR = ("{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + "
          "message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ "
          "'<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == "
          "'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
          "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% "
          "endfor %}")

LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
          "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | "
          "trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% "
          "endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' "
          "}}")
LLAMA3_ASKED = LLAMA3.replace("{{ '<|start", "{% if add_generation_prompt %}{{ '<|start") + \
    "{% endif %}"

LLAMA31 = r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | join(", ") + "\n\n"}}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "Do not use variables.\n\n" }}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- if tools_in_user_message and not tools is none %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- "<|eom_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
LLAMA32 = LLAMA31.replace('    {%- set date_string = "26 Jul 2024" %}\n', """\
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
""").replace("builtin_tools is defined or tools", "tools").replace("""\
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | join(", ") + "\\n\\n"}}
{%- endif %}
""", "")

TEMPLATES = {
    "chatml": [CHATML, CHATML_DEFINED, QWEN2, QWEN2_OTHER], "qwen2.5": [QWEN25], "qwen3": [QWEN3],
    "llama2": [LLAMA2], "mistral-v1": [MISTRAL, MISTRAL_01], "mistral-v3": [NEMO, MISTRAL_03],
    "zephyr": [ZEPHYR], "llama3": [LLAMA3, LLAMA3_ASKED], "llama3.1": [LLAMA31],
    "llama3.2": [LLAMA32]}

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
SPACES = "\n \u00a0\u3000\u2028\x1f x y \u2003\t\r"
CHATS = [
    [(USER, "Hello")],
    [(SYSTEM, "Be brief."), (USER, "Hello")],
    [(SYSTEM, ""), (USER, "")],
    [(USER, SPACES), (ASSISTANT, SPACES), (USER, "'\"\\n{{ x }}")],
    [(SYSTEM, SPACES), (USER, " a "), (ASSISTANT, " b "), (USER, " c "), (ASSISTANT, ""),
     (USER, "d\n")],
    [(USER, "a"), (ASSISTANT, "<think>\nhm\n</think>\n\nyes\n"), (USER, "b"),
     (ASSISTANT, "no </think> twice </think>\n\n"), (USER, "c")],
    [(USER, "a"), (ASSISTANT, "<think>\nhm, <think>hm\n\n</think>\n\nyes\n"),
     (USER, "<tool_response>b</tool_response>"), (ASSISTANT, "\nplain"),
     (USER, "<tool_response></tool_response>")],
    [(USER, "<tool_response></tool_response>"), (ASSISTANT, "<think>x</think>y"),
     (USER, "<tool_response></tool_response>")],
]


def render(template, chat, bos, eos):
    messages = [{"role": role, "content": text} for role, text in chat]
    try:
        return render_jinja_template([messages], chat_template=template, bos_token=bos,
                                     eos_token=eos, add_generation_prompt=True)[0][0]
    except Exception as error:  # whatever a template raises: it takes no such chat
        if "Only user and assistant" in str(error) or "must alternate" in str(error):
            return None
        raise


def main():
    result = []
    for name, templates in TEMPLATES.items():
        for template in templates:
            chats = [{"messages": chat, "expected": render(template, chat, "<s>", "</s>")}
                     for chat in CHATS]
            result.append({"name": name, "template": template, "bos": "<s>", "eos": "</s>",
                           "chats": chats})
    if len(sys.argv) > 1:
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
        chats = [{"messages": chat, "expected": tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in chat], tokenize=False,
            add_generation_prompt=True)} for chat in CHATS]
        result.append({"name": "chatml", "template": tokenizer.chat_template,
                       "bos": tokenizer.bos_token, "eos": tokenizer.eos_token, "chats": chats})
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()

// See jinja_shape.h.
#include "jinja_shape.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace billm::tokenizer {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

struct Token {
  bool literal;
  std::string text;  // of a literal: what it means
};

std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else {
      if (c == '\\' || c == '\'') result += '\\';
      result += c;
    }
  }
  return result + "'";
}

// The literal that starts at `position`, which moves behind it.
std::optional<std::string> read_literal(std::string_view text, size_t& position) {
  const char quote = text[position++];
  std::string result;
  while (position < text.size() && text[position] != quote) {
    char c = text[position++];
    if (c == '\\') {
      if (position == text.size()) return std::nullopt;
      c = text[position++];
      if (c == 'n') {
        c = '\n';
      } else if (c == 't') {
        c = '\t';
      } else if (c != '\\' && c != '\'' && c != '"') {
        return std::nullopt;
      }
    }
    result += c;
  }
  if (position++ >= text.size()) return std::nullopt;
  return result;
}

bool is_name(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_word);
}

// a [ 'b' ] -> a . b, and 'a' + 'b' -> 'ab', at the end of `tokens`.
void contract(std::vector<Token>& tokens) {
  const size_t n = tokens.size();
  const auto is = [&](size_t back, const char* text) {
    return n > back && !tokens[n - 1 - back].literal && tokens[n - 1 - back].text == text;
  };
  if (n >= 4 && is(0, "]") && tokens[n - 2].literal && is(2, "[") && is_name(tokens[n - 2].text)) {
    const Token& owner = tokens[n - 4];
    if (owner.literal || !(is_word(owner.text.back()) || owner.text == "]")) return;
    const std::string name = tokens[n - 2].text;
    tokens.resize(n - 3);
    tokens.push_back({false, "."});
    tokens.push_back({false, name});
  } else if (n >= 3 && tokens[n - 1].literal && is(1, "+") && tokens[n - 3].literal) {
    tokens[n - 3].text += tokens[n - 1].text;
    tokens.resize(n - 2);
  }
}

std::optional<std::string> expression(std::string_view text) {
  std::vector<Token> tokens;
  for (size_t i = 0; i < text.size();) {
    if (is_space(text[i])) {
      ++i;
      continue;
    }
    if (text[i] == '\'' || text[i] == '"') {
      const auto literal = read_literal(text, i);
      if (!literal) return std::nullopt;
      tokens.push_back({true, *literal});
    } else {
      const size_t begin = i++;
      if (is_word(text[begin])) {
        while (i < text.size() && is_word(text[i])) ++i;
      } else if (i < text.size() && text[i] == '=' &&
                 std::string_view("=!<>").find(text[begin]) != std::string_view::npos) {
        ++i;
      }
      tokens.push_back({false, std::string(text.substr(begin, i - begin))});
    }
    contract(tokens);
  }
  std::string result;
  for (const Token& token : tokens) {
    result += (result.empty() ? "" : " ") + (token.literal ? quoted(token.text) : token.text);
  }
  return result;
}

struct Tag {
  char kind = 0;                     // '{', '%', '#'; 0: the end of the program
  size_t begin = 0, end = 0;         // of the whole tag
  bool left = false, right = false;  // "-" there
  std::string_view inside;
};

// Where a tag's closing mark is, literals being skipped; npos if nowhere.
size_t find_close(std::string_view program, size_t position, char kind) {
  const std::string close = kind == '{' ? "}}" : kind == '%' ? "%}" : "#}";
  while (position < program.size()) {
    if (program.substr(position, 2) == close) return position;
    if (kind != '#' && (program[position] == '\'' || program[position] == '"')) {
      if (!read_literal(program, position)) return std::string_view::npos;
    } else {
      ++position;
    }
  }
  return std::string_view::npos;
}

std::optional<Tag> next_tag(std::string_view program, size_t position) {
  Tag tag;
  tag.begin = tag.end = program.size();
  for (; position + 1 < program.size(); ++position) {
    const char kind = program[position + 1];
    if (program[position] != '{' || (kind != '{' && kind != '%' && kind != '#')) continue;
    const size_t close = find_close(program, position + 2, kind);
    if (close == std::string_view::npos) return std::nullopt;
    tag = {kind,  position, close + 2,
           false, false,    program.substr(position + 2, close - position - 2)};
    if (tag.inside.starts_with('+') || tag.inside.ends_with('+')) return std::nullopt;
    if (tag.inside.starts_with('-')) {
      tag.left = true;
      tag.inside.remove_prefix(1);
    }
    if (tag.inside.ends_with('-')) {
      tag.right = true;
      tag.inside.remove_suffix(1);
    }
    break;
  }
  return tag;
}

// The text between two tags as it is put out; at the start of the program `before` is null.
std::string_view text_between(std::string_view text, const Tag* before, const Tag& after) {
  const auto line = text.rfind('\n');
  const bool from_line_start = line != std::string_view::npos || before == nullptr;
  if (after.left) {
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  } else if ((after.kind == '%' || after.kind == '#') && from_line_start) {
    const size_t start = line == std::string_view::npos ? 0 : line + 1;
    if (text.find_first_not_of(" \t", start) == std::string_view::npos) {
      text = text.substr(0, start);
    }
  } else if (after.kind == 0 && text.ends_with('\n')) {
    text.remove_suffix(1);
  }
  if (before == nullptr) return text;
  if (before->right) {
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  } else if (before->kind != '{' && text.starts_with('\n')) {
    text.remove_prefix(1);
  }
  return text;
}

}  // namespace

std::string jinja_shape(std::string_view program) {
  std::string result;
  Tag before;
  size_t position = 0;
  for (bool first = true;; first = false) {
    const auto tag = next_tag(program, position);
    if (!tag) return "";
    result += text_between(program.substr(position, tag->begin - position),
                           first ? nullptr : &before, *tag);
    if (tag->kind == 0) return result;
    if (tag->kind != '#') {
      const auto inside = expression(tag->inside);
      if (!inside) return "";
      result += (tag->kind == '{' ? "{{" : "{%") + *inside + (tag->kind == '{' ? "}}" : "%}");
    }
    before = *tag;
    position = tag->end;
  }
}

}  // namespace billm::tokenizer

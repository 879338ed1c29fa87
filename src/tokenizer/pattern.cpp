// Oniguruma's regular expressions rewritten for PCRE2.
// A strict parser of the part of the syntax that tokenizers use: what it knows it writes out in a
// form that has one meaning in PCRE2 (every literal as \x{...}), what it does not know is an error.
// Differences handled here: ^ and $ are per line, {n,m}+ repeats instead of being possessive, {,m},
// nested character classes, \v is one character, scripts are not script extensions, \w.
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "billm/base/error.h"
#include "regex.h"
#include "unicode.h"

namespace billm::tokenizer {
namespace {

constexpr int kMaxDepth = 50;     // of groups
constexpr int kMaxRepeat = 1000;  // of {n,m}: PCRE2 copies the repeated part

std::string hex_literal(char32_t code_point) {
  char digits[8];
  const auto end = std::to_chars(digits, digits + 8, static_cast<uint32_t>(code_point), 16).ptr;
  return "\\x{" + std::string(digits, end) + "}";
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    alternatives(false, 0);
    if (!at_end()) fail("unmatched )");
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw bad_input("regular expression: " + what + " at byte " + std::to_string(at_) +
                    " is not supported");
  }
  bool at_end() const { return at_ >= in_.size(); }
  bool next_is(std::string_view text) const { return in_.substr(at_).starts_with(text); }
  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    at_ += text.size();
    return true;
  }

  void alternatives(bool ignore_case, int depth) {
    if (depth > kMaxDepth) fail("nesting this deep");
    // Later in a group the two engines disagree on how far (?i) reaches.
    if (take("(?i)")) {
      ignore_case = true;
      out_ += "(?i)";
    }
    while (!at_end() && !next_is(")")) {
      if (take("|")) {
        out_ += '|';
        last_letter_ = 0;
      } else {
        term(ignore_case, depth);
      }
    }
  }

  void term(bool ignore_case, int depth) {
    const size_t start = out_.size();
    bool repeatable = true;
    if (take("(")) {
      repeatable = group(ignore_case, depth);
    } else if (take("[")) {
      bool negated = take("^");
      out_ += negated ? "[^" : "[";
      char_class(ignore_case, 0);
      out_ += ']';
      last_letter_ = 0;
    } else if (take(".")) {
      out_ += '.';
      last_letter_ = 0;
    } else if (take("^") || take("$")) {
      out_ += std::string("(?m:") + in_[at_ - 1] + ")";
      repeatable = false;
    } else if (take("\\A") || take("\\z")) {
      out_ += in_.substr(at_ - 2, 2);
      repeatable = false;
    } else if (next_is("*") || next_is("+") || next_is("?")) {
      fail("a repetition of nothing");
    } else if (const auto set = class_escape(ignore_case)) {
      out_ += "[" + *set + "]";
      last_letter_ = 0;
    } else {
      literal(ignore_case);
    }
    repetition(ignore_case, start, repeatable);
  }

  // Behind "(". False for what cannot be repeated.
  bool group(bool ignore_case, int depth) {
    bool repeatable = true;
    if (take("?i:")) {
      ignore_case = true;
      out_ += "(?i:";
    } else if (take("?-i:")) {
      ignore_case = false;
      out_ += "(?-i:";
    } else if (take("?:")) {
      out_ += "(?:";
    } else if (take("?>")) {
      out_ += "(?>";
    } else if (next_is("?=") || next_is("?!") || next_is("?<=") || next_is("?<!")) {
      const size_t size = next_is("?<") ? 3 : 2;
      out_ += '(';
      out_ += in_.substr(at_, size);
      at_ += size;
      repeatable = false;
    } else if (next_is("?")) {
      fail("this kind of group");
    } else {
      out_ += "(?:";  // nothing here refers to captures
    }
    alternatives(ignore_case, depth + 1);
    if (!take(")")) fail("a group without end");
    out_ += ')';
    return repeatable;
  }

  std::optional<int> number() {
    int value = 0;
    const char* begin = in_.data() + at_;
    const auto parsed = std::from_chars(begin, in_.data() + in_.size(), value);
    if (parsed.ec == std::errc::result_out_of_range) fail("a repetition this large");
    if (parsed.ec != std::errc() || !is_digit(*begin)) return std::nullopt;
    at_ += static_cast<size_t>(parsed.ptr - begin);
    return value;
  }

  // {n} {n,} {n,m} {,m} in PCRE2's form; anything else is literal text and nothing is taken.
  std::optional<std::string> interval() {
    const size_t start = at_;
    if (!take("{")) return std::nullopt;
    const auto low = number();
    const bool comma = take(",");
    const auto high = comma ? number() : low;
    if (!take("}") || (!low && !high)) {
      at_ = start;
      return std::nullopt;
    }
    if (low.value_or(0) > kMaxRepeat || high.value_or(0) > kMaxRepeat) {
      fail("a repetition this large");
    }
    if (high && *high < low.value_or(0)) fail("a repetition with its limits swapped");
    std::string counts = "{";
    counts += std::to_string(low.value_or(0));
    counts += ',';
    if (high) counts += std::to_string(*high);
    return counts += '}';
  }

  void repetition(bool ignore_case, size_t start, bool repeatable) {
    const size_t mark = at_;
    if (const auto counts = interval()) {
      if (!repeatable || ignore_case) fail("a repetition here");
      const bool exact = in_.substr(mark, at_ - mark).find(',') == std::string_view::npos;
      out_ += *counts;
      if (next_is("?")) {
        if (exact) fail("{n}?");
        take("?");
        out_ += '?';
      } else if (take("+")) {
        out_.insert(start, "(?:");
        out_ += ")+";
      }
    } else if (next_is("*") || next_is("+") || next_is("?")) {
      if (!repeatable) fail("a repetition here");
      out_ += in_[at_++];
      if (next_is("?") || next_is("+")) out_ += in_[at_++];
    } else {
      return;
    }
    const size_t behind = at_;
    if (next_is("*") || next_is("+") || next_is("?") || interval()) {
      at_ = behind;
      fail("a repetition of a repetition");
    }
  }

  // Names of properties, as Oniguruma compares them, and PCRE2's names.
  std::string property() {
    const bool outer = in_[at_ - 1] == 'P';
    if (!take("{")) fail("a property without braces");
    const bool negated = take("^") != outer;
    std::string name;
    while (!at_end() && in_[at_] != '}') {
      const char c = in_[at_++];
      if (c != ' ' && c != '_' && c != '-') name += is_letter(c) ? static_cast<char>(c | 0x20) : c;
    }
    if (!take("}")) fail("a property without end");
    static constexpr std::array<std::pair<std::string_view, std::string_view>, 43> kNames = {{
        {"l", "L"},   {"letter", "L"},   {"lu", "Lu"},         {"ll", "Ll"},    {"lt", "Lt"},
        {"lm", "Lm"}, {"lo", "Lo"},      {"m", "M"},           {"mark", "M"},   {"mn", "Mn"},
        {"mc", "Mc"}, {"me", "Me"},      {"n", "N"},           {"number", "N"}, {"nd", "Nd"},
        {"nl", "Nl"}, {"no", "No"},      {"p", "P"},           {"pc", "Pc"},    {"pd", "Pd"},
        {"ps", "Ps"}, {"pe", "Pe"},      {"pi", "Pi"},         {"pf", "Pf"},    {"po", "Po"},
        {"s", "S"},   {"symbol", "S"},   {"sm", "Sm"},         {"sc", "Sc"},    {"sk", "Sk"},
        {"so", "So"}, {"z", "Z"},        {"separator", "Z"},   {"zs", "Zs"},    {"zl", "Zl"},
        {"zp", "Zp"}, {"c", "C"},        {"cc", "Cc"},         {"cf", "Cf"},    {"cn", "Cn"},
        {"co", "Co"}, {"han", "sc:Han"}, {"punctuation", "P"},
    }};
    for (const auto& [onig, pcre] : kNames) {
      if (onig == name) return std::string(negated ? "\\P{" : "\\p{") + std::string(pcre) + "}";
    }
    fail("property \"" + name.substr(0, 40) + "\"");
  }

  // \s \d \w \p{..} and their complements, in the form that stands inside [ ]; nothing taken if
  // another thing is next. More than one item for \w, of which \W is not expressible inside [ ].
  std::optional<std::string> class_escape(bool ignore_case, bool inside = false) {
    if (at_ + 1 >= in_.size() || in_[at_] != '\\') return std::nullopt;
    const char c = in_[at_ + 1];
    if (std::string_view("sSdDwWpP").find(c) == std::string_view::npos) return std::nullopt;
    if (ignore_case && c != 's' && c != 'd') fail("this class without regard to case");
    at_ += 2;
    if (c == 's' || c == 'S') return std::string("\\") + c;
    if (c == 'd') return "\\p{Nd}";
    if (c == 'D') return "\\P{Nd}";
    if (c == 'p' || c == 'P') return property();
    // Oniguruma takes Latin-1's superscripts and fractions for word characters, too.
    static constexpr std::string_view kWord =
        "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
    if (c == 'w') return std::string(kWord);
    if (inside) fail("\\W inside a character class");
    return "^" + std::string(kWord);
  }

  // One literal character, escaped or not; moves behind it.
  char32_t character() {
    if (!take("\\")) return next_code_point(in_, at_);
    if (at_end()) fail("a backslash at the end");
    const char c = in_[at_];
    if (!is_letter(c) && !is_digit(c)) return next_code_point(in_, at_);
    ++at_;
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 'x': {
        if (!take("{")) {
          const char32_t value = hex(2, 2);
          if (value > 0x7f) fail("a byte of a character");
          return value;
        }
        const char32_t value = hex(1, 6);
        if (!take("}")) fail("\\x{ without end");
        return value;
      }
      case 'u':
        return hex(4, 4);
      default:
        --at_;
        fail(std::string("\\") + c);
    }
  }

  char32_t hex(size_t min, size_t max) {
    uint32_t value = 0;
    const char* begin = in_.data() + at_;
    const char* end = begin + std::min(max, in_.size() - at_);
    const auto parsed = std::from_chars(begin, end, value, 16);
    if (parsed.ec != std::errc() || parsed.ptr < begin + min || value > 0x10ffff ||
        (value >= 0xd800 && value < 0xe000)) {
      fail("this character code");
    }
    at_ += static_cast<size_t>(parsed.ptr - begin);
    return value;
  }

  void check_character(char32_t first, char32_t last, bool ignore_case) const {
    if (covers_stand_in(first, last))
      fail("a character newer than Unicode 14, or in place of one,");
    if (ignore_case && last > 0x7f) fail("a non-ASCII character without regard to case");
  }

  void literal(bool ignore_case) {
    const char32_t c = character();
    check_character(c, c, ignore_case);
    if (ignore_case) {
      // Two letters that fold from one character (a ligature, sharp s) match it in Oniguruma only.
      const char letter =
          static_cast<char>(c < 0x80 && is_letter(static_cast<char>(c)) ? c | 0x20 : 0);
      const std::string pair = {last_letter_, letter};
      for (const char* fold : {"ss", "ff", "fi", "fl", "st"}) {
        if (pair == fold) fail(std::string("\"") + fold + "\" without regard to case");
      }
      last_letter_ = letter;
    }
    out_ += hex_literal(c);
  }

  // Behind "[" and "^". A class inside a class is a union: its items are written into the outer
  // one.
  void char_class(bool ignore_case, int depth) {
    if (depth > kMaxDepth) fail("nesting this deep");
    if (next_is("]")) fail("] as the first item of a character class");
    while (!take("]")) {
      if (at_end()) fail("a character class without end");
      if (next_is("&&")) fail("&& (intersection)");
      if (next_is("[:")) fail("[: :]");
      if (take("[")) {
        if (next_is("^")) fail("a negated class inside a class");
        char_class(ignore_case, depth + 1);
        if (next_is("-") && !next_is("-]")) fail("- behind a class");
        continue;
      }
      if (const auto set = class_escape(ignore_case, true)) {
        out_ += *set;
        if (next_is("-") && !next_is("-]")) fail("- behind a class");
        continue;
      }
      const char32_t first = character();
      char32_t last = first;
      if (next_is("-") && !next_is("-]")) {
        take("-");
        if (at_end() || next_is("[")) fail("this range");
        if (class_escape(ignore_case, true)) fail("a class as the end of a range");
        last = character();
        if (last < first) fail("a range with its ends swapped");
        if (next_is("-") && !next_is("-]")) fail("- behind a range");
      }
      check_character(first, last, ignore_case);
      out_ += hex_literal(first);
      if (last != first) {
        out_ += '-';
        out_ += hex_literal(last);
      }
    }
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  char last_letter_ = 0;  // the literal before, under (?i)
};

}  // namespace

std::string pcre2_from_oniguruma(std::string_view pattern) { return Translator(pattern).run(); }

std::string pcre2_from_literal(std::string_view text) {
  std::string result;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    if (covers_stand_in(c, c)) {
      throw bad_input("pattern: a character newer than Unicode 14 is not supported");
    }
    result += hex_literal(c);
  }
  return result;
}

}  // namespace billm::tokenizer

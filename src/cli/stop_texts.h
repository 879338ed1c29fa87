// Texts that end a generation, found across the pieces in which text arrives.
#pragma once

#include <string>
#include <vector>

namespace billm {

class StopTexts {
 public:
  // Throws Error{kUsage} for an empty one or one that is not UTF-8.
  explicit StopTexts(std::vector<std::string> texts);

  // What of the text so far is certain to come before a stop text and was not given out before.
  std::string push(const std::string& piece);
  // The rest, at the end of the text.
  std::string finish();
  // Whether one was found: it and what follows is not given out.
  bool found() const { return found_; }

 private:
  std::vector<std::string> texts_;
  std::string held_;  // may be the beginning of a stop text
  bool found_ = false;
};

}  // namespace billm

// The one exception type of billm. The library throws it and never prints or exits; only
// src/cli/main.cpp catches it and turns the code into the exit status.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace billm {

// Values are the process exit codes; do not change them.
enum class ErrorCode : int {
  kFailure = 1,   // the machine or billm failed: no disk, no permission, internal error
  kUsage = 2,     // the command line is wrong
  kBadInput = 3,  // a model, text or packed file is missing or wrong
};

// `message` is one line: what, where, expected, got. `hint` says what to do; it may be empty.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message, std::string hint = "")
      : code_(code), message_(std::move(message)), hint_(std::move(hint)) {}
  const char* what() const noexcept override { return message_.c_str(); }
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }

 private:
  ErrorCode code_;
  std::string message_;
  std::string hint_;
};

// Shorthand for the commonest case: something the user gave is missing or wrong.
inline Error bad_input(std::string message, std::string hint = "") {
  return Error(ErrorCode::kBadInput, std::move(message), std::move(hint));
}

}  // namespace billm

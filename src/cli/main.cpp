// The program: parses the command line, runs one command, turns every error into one line on stderr
// and an exit status (include/billm/base/error.h).
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <numeric>
#include <span>
#include <sstream>
#include <vector>

#include "billm/base/error.h"
#include "command.h"
#include "common.h"
#include "kernels/cpu/targets.h"

namespace {

using billm::ErrorCode;

int report(const std::string& command, const std::string& message, const std::string& hint,
           ErrorCode code) {
  std::string line = "billm" + (command.empty() ? "" : " " + command) + ": error: " + message;
  if (!hint.empty()) line += " (" + hint + ")";
  for (char& c : line) {  // one line, whatever the arguments were
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  std::cerr << line << std::endl;
  return static_cast<int>(code);
}

// Levenshtein distance.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}

// The next file that is opened would take the place of a standard one that is closed, and a model
// get what is printed. This way reading and writing them fails.
void occupy_closed_standard_files() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    if (::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) return;
  }
}

// BILLM_CPU_TARGET: the best instructions that the kernels may use, for measurements.
void limit_instructions() {
  const char* const target = std::getenv("BILLM_CPU_TARGET");
  if (target == nullptr || *target == '\0') return;
  try {
    billm::kernels::limit_targets(target);
  } catch (const billm::Error& error) {
    throw billm::Error(error.code(), "BILLM_CPU_TARGET: " + error.message());
  }
}

// The command that `word` may have meant, or "".
std::string did_you_mean(const std::string& word) {
  std::string best;
  size_t least = 3;  // farther words are no typing error
  for (const billm::Command& command : billm::commands()) {
    const size_t d = distance(word, command.name);
    if (d < least) {
      least = d;
      best = command.name;
    }
  }
  return best;
}

// "--flag=" would take the next word for its value. `words`: those after the command.
void check_empty_values(const CLI::App& command, std::span<char*> words) {
  for (size_t i = 0; i < words.size() && std::string(words[i]) != "--"; ++i) {
    std::string word = words[i];
    if (const CLI::Option* option = command.get_option_no_throw(word)) {
      if (option->get_items_expected_max() > 0) ++i;  // its value, whatever that is
      continue;
    }
    if (!word.ends_with('=')) continue;
    const std::string flag = word;
    word.pop_back();
    if (command.get_option_no_throw(word) == nullptr) continue;
    throw billm::Error(ErrorCode::kUsage, flag + ": expected a value after the '='",
                       "give one, or leave the flag out");
  }
}

int run(int argc, char** argv) {
  // Writing to a closed pipe or past a file size limit is an error to report, not to die of.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  occupy_closed_standard_files();
  // Tables are written when they are flushed, where the system says why it cannot.
  static char buffer[1 << 20];
  if (::isatty(STDOUT_FILENO) == 0) std::setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
  CLI::App app("billm: LLM checkpoints at about one bit per weight, truly packed", "billm");
  app.set_version_flag("--version", "billm " BILLM_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Exit status: 0 ok, 1 failure, 2 wrong usage, 3 bad input.\n"
      "billm COMMAND --help explains each command.");
  struct Entry {
    CLI::App* app;
    std::function<void()> run;
  };
  std::vector<Entry> entries;
  for (const billm::Command& command : billm::commands()) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    entries.push_back({sub, command.setup(*sub)});
  }
  const std::string word = argc > 1 ? argv[1] : "";
  const bool known = std::any_of(billm::commands().begin(), billm::commands().end(),
                                 [&](const billm::Command& c) { return word == c.name; });
  const std::string named = known ? word : "";
  try {
    if (!known && !word.empty() && word[0] != '-') {
      const std::string guess = did_you_mean(word);
      throw billm::Error(ErrorCode::kUsage, "unknown command '" + word + "'",
                         guess.empty() ? "see billm --help" : "did you mean '" + guess + "'?");
    }
    if (known) {
      check_empty_values(*app.get_subcommand(word),
                         std::span(argv, static_cast<size_t>(argc)).subspan(2));
    }
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& asked) {  // --help, --version
      std::ostringstream text;
      app.exit(asked, text);
      billm::write_stdout(text.str());
      return 0;
    }
    limit_instructions();
    for (const Entry& entry : entries) {
      if (entry.app->parsed()) entry.run();
    }
    billm::flush_stdout();
    return 0;
  } catch (const CLI::ParseError& error) {
    return report(named, error.what(), "see billm " + (named.empty() ? "" : named + " ") + "--help",
                  ErrorCode::kUsage);
  } catch (const billm::Error& error) {
    return report(named, error.message(), error.hint(), error.code());
  } catch (const std::bad_alloc&) {
    return report(named, "out of memory", "use fewer or shorter sequences, or a smaller model",
                  ErrorCode::kFailure);
  } catch (const std::exception& error) {
    // LibTorch's messages carry a stack trace: the first line says what happened.
    const std::string what = error.what();
    return report(named, "internal error: " + what.substr(0, what.find('\n')), "",
                  ErrorCode::kFailure);
  }
}

}  // namespace

// LibTorch's destructors would take back each of its operators: 0.1 s, a third of the time of a
// short command (a Xeon of 2023). What billm has opened is closed when run() returns.
int main(int argc, char** argv) {
  const int status = run(argc, argv);
  std::fflush(nullptr);
  std::_Exit(status);
}

// Environment of the tests: see tests/support/environment.h.
#include "support/environment.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

namespace billm::test {

std::filesystem::path tests_directory() { return BILLM_TESTS_DIR; }

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool require_data() { return environment("BILLM_REQUIRE_DATA") == "1"; }

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "billm-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error(name + ": cannot create");
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

namespace {
std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
}  // namespace

std::string run_python(const std::string& python, const std::string& script,
                       const std::vector<std::string>& arguments) {
  const TemporaryDirectory directory;
  const std::string out = (directory.path() / "out").string();
  const std::string err = (directory.path() / "err").string();
  const std::string support = (tests_directory() / "support").string() + "/";
  const std::string launcher = support + "cached_reference.py", file = support + script;
  std::vector<const char*> words = {python.c_str(), launcher.c_str(), file.c_str()};
  for (const std::string& argument : arguments) words.push_back(argument.c_str());
  words.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("cannot start " + python);
  if (child == 0) {
    if (std::freopen(out.c_str(), "w", stdout) == nullptr) ::_exit(126);
    if (std::freopen(err.c_str(), "w", stderr) == nullptr) ::_exit(126);
    ::execvp(words[0], const_cast<char* const*>(words.data()));
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    const std::string text = read_all(err);
    throw std::runtime_error(
        script + " failed: " + text.substr(text.size() - std::min<size_t>(text.size(), 2000)));
  }
  return read_all(out);
}

TinyModels::TinyModels(const std::string& python, const std::vector<std::string>& names)
    : directory_(environment("BILLM_TINY_MODELS")), names_(names) {
  std::string list = directory_.empty() ? "" : read_all(directory_ / "names.txt");
  if (list.empty()) {
    std::vector<std::string> arguments = {own_.path().string()};
    arguments.insert(arguments.end(), names.begin(), names.end());
    list = run_python(python, "make_tiny_model.py", arguments);
    directory_ = own_.path();
  }
  if (!names_.empty()) return;
  std::istringstream lines(list);
  for (std::string name; std::getline(lines, name);) names_.push_back(name);
}

int64_t resident_bytes(const std::filesystem::path& path) {
  std::ifstream maps("/proc/self/smaps");
  const std::string name = std::filesystem::canonical(path).string();
  int64_t kilobytes = 0;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    const std::string key = line.substr(0, line.find(' '));
    if (!key.ends_with(':')) {
      inside = line.ends_with(name);  // the first line of a mapping
    } else if (inside && key == "Rss:") {
      kilobytes += std::stoll(line.substr(4));
    }
  }
  return kilobytes * 1024;
}

int running_threads() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<int>(std::distance(begin(tasks), end(tasks)));
}

std::vector<float> read_floats(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error(path.string() + ": cannot open");
  std::vector<float> values(static_cast<size_t>(file.tellg()) / sizeof(float));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(float)));
  return values;
}

}  // namespace billm::test

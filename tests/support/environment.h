// What tests take from outside: data, the demo model and Python, by environment variables; and a
// temporary directory. A test whose variable is not set skips and says so; with
// BILLM_REQUIRE_DATA=1 it fails instead.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace billm::test {

// Value of an environment variable, "" if it is not set.
std::string environment(const char* name);
// The folder tests/ of the sources.
std::filesystem::path tests_directory();
bool require_data();  // BILLM_REQUIRE_DATA=1

// In a TEST body: const std::string `variable` = value of `name`, or the test ends here.
#define BILLM_NEED(variable, name)                                   \
  const std::string variable = ::billm::test::environment(name);     \
  if (variable.empty()) {                                            \
    if (::billm::test::require_data()) FAIL() << name " is not set"; \
    GTEST_SKIP() << name " is not set";                              \
  }                                                                  \
  static_assert(true)

// A new empty directory, removed with all it holds at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Runs tests/support/<script> with `python`, through cached_reference.py, and returns its standard
// output. Throws std::runtime_error with the end of its output if it fails.
std::string run_python(const std::string& python, const std::string& script,
                       const std::vector<std::string>& arguments);

// Models of tests/support/make_tiny_model.py with the values that transformers computes for them:
// those that ctest's fixture made (BILLM_TINY_MODELS), to be read only; without it, made here.
class TinyModels {
 public:
  // No names: all cases. Throws std::runtime_error with Python's output if they cannot be made.
  explicit TinyModels(const std::string& python, const std::vector<std::string>& names = {});
  std::filesystem::path path(const std::string& name) const { return directory_ / name; }
  const std::vector<std::string>& names() const { return names_; }

 private:
  TemporaryDirectory own_;
  std::filesystem::path directory_;
  std::vector<std::string> names_;
};

// Bytes of a file that this process has mapped and that are resident in its memory, and threads of
// this process, as /proc says.
int64_t resident_bytes(const std::filesystem::path& path);
int running_threads();

// A file of raw little-endian fp32 values.
std::vector<float> read_floats(const std::filesystem::path& path);

}  // namespace billm::test

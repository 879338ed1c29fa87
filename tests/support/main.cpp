// main() of the GoogleTest programs. ctest runs a program once for each of its source files:
//   unit_pack --file=plane_tiles_test.cpp
// so that a process (LibTorch takes 0.2 s to load) and what a file's cases share serve all of them.
// Patterns in BILLM_TESTS_LEFT_OUT (as in --gtest_filter) are left out.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "support/environment.h"

namespace {

// The cases that the source file `name` defines, as a filter; "" if there are none.
std::string cases_of(const std::string& name) {
  std::string filter;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) {
      const testing::TestInfo& test = *suite.GetTestInfo(t);
      const std::string file = test.file();
      if (file != name && !file.ends_with("/" + name)) continue;
      filter += (filter.empty() ? "" : ":") + std::string(suite.name()) + "." + test.name();
    }
  }
  return filter;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::string filter = testing::GTEST_FLAG(filter);
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::string name = word.starts_with("--file=") ? word.substr(7) : "";
    filter = name.empty() ? "" : cases_of(name);
    if (filter.empty()) {
      std::fprintf(stderr, "%s: %s: no test cases\n", argv[0], word.c_str());
      return 2;
    }
  }
  const std::string left_out = billm::test::environment("BILLM_TESTS_LEFT_OUT");
  if (!left_out.empty()) {
    filter += (filter.find('-') == std::string::npos ? "-" : ":") + left_out;
  }
  testing::GTEST_FLAG(filter) = filter;
  return RUN_ALL_TESTS();
}

// What --calib names: one text or a mixture, and what can be read in two ways.
#include "src/cli/calibration.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "billm/base/error.h"
#include "support/environment.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

class CalibrationTest : public testing::Test {
 protected:
  void SetUp() override { fs::current_path(directory_.path()); }
  void TearDown() override { fs::current_path("/"); }

  static void touch(const std::string& name) { std::ofstream(name) << "text"; }

  // "source=weight source=weight ...", weights in units of a millionth.
  static std::string parsed(const std::string& calib) {
    std::string text;
    for (const CalibrationText& part : parse_calibration(calib)) {
      text += (text.empty() ? "" : " ") + part.source + "=" + std::to_string(part.weight);
    }
    return text;
  }

  static std::string refusal(const std::string& calib) {
    try {
      return "no error: " + parsed(calib);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage) << error.message();
      return error.message() + " (" + error.hint() + ")";
    }
  }

  test::TemporaryDirectory directory_;
};

TEST_F(CalibrationTest, Texts) {
  touch("notes.txt");
  EXPECT_EQ(parsed("wikitext2"), "wikitext2=1000000");
  EXPECT_EQ(parsed("wikitext2:3"), "wikitext2=3000000");
  EXPECT_EQ(parsed("wikitext2:3,c4"), "wikitext2=3000000 c4=1000000");
  EXPECT_EQ(parsed("c4,./notes.txt:0.25,ptb:1000000"),
            "c4=1000000 ./notes.txt=250000 ptb=1000000000000");
  EXPECT_EQ(parsed("c4:1.000001"), "c4=1000001");
  EXPECT_EQ(parsed(""), "=1000000");
  EXPECT_EQ(parsed("none.txt:2"), "none.txt=2000000");  // the loader says that it is not there
  EXPECT_EQ(parsed("none:x"), "none:x=1000000");
}

TEST_F(CalibrationTest, ColonsAndCommasOfPaths) {
  touch("a:3");
  touch("b:x");
  EXPECT_EQ(parsed("a:3"), "a:3=1000000");
  EXPECT_EQ(parsed("a:3:2"), "a:3=2000000");
  EXPECT_EQ(parsed("b:x,c4"), "b:x=1000000 c4=1000000");
  touch("a");
  EXPECT_EQ(refusal("a:3"),
            "--calib a:3: can mean the file of this name, or a with the weight 3 (write a:3:1 for "
            "the file, or another form of the number, such as a:3.0)");
  EXPECT_EQ(parsed("a:3.0"), "a=3000000");
  EXPECT_EQ(parsed("a:3:1"), "a:3=1000000");
  touch("one,two");
  EXPECT_EQ(parsed("one,two"), "one,two=1000000");
  touch("a,c4");
  EXPECT_EQ(
      refusal("a,c4"),
      "--calib a,c4: can mean the file of this name, or a mixture of 2 texts (for the mixture "
      "give each text a weight (a:1,b:1), for the file rename it)");
  EXPECT_EQ(parsed("a:1,c4:1"), "a=1000000 c4=1000000");
}

TEST_F(CalibrationTest, Refusals) {
  for (const char* weight :
       {"0", "-1", "x", "", "1e3", "1.0000001", "1000001", "0.0000001", " 1", "nan"}) {
    EXPECT_NE(refusal(std::string("wikitext2:") + weight).find("expected a weight above 0"),
              std::string::npos)
        << weight << ": " << refusal(std::string("wikitext2:") + weight);
  }
  for (const char* calib : {"wikitext2,", ",c4", "wikitext2,,c4"}) {
    EXPECT_NE(refusal(calib).find("beside each comma, got nothing"), std::string::npos) << calib;
  }
  EXPECT_NE(refusal(":3").find("before the colon, got nothing"), std::string::npos);
  EXPECT_NE(refusal("c4:1,wikitext2,c4:2").find("c4 is named twice"), std::string::npos);
  touch("a");
  EXPECT_NE(refusal("a,./a").find("./a is named twice"), std::string::npos);
}

TEST_F(CalibrationTest, SharesAndNames) {
  CalibrationOptions options;
  options.calib = "wikitext2:3,c4:1.5";
  options.nsamples = 8;
  const CalibrationSize size = options.size();
  EXPECT_EQ(size.sequences, 8);
  ASSERT_EQ(size.parts.size(), 2u);
  EXPECT_EQ(size.parts[0].name, "wikitext2");
  EXPECT_EQ(size.parts[0].windows, 5);  // 5.33
  EXPECT_EQ(size.parts[1].windows, 3);  // 2.67
  EXPECT_EQ(size.parts[1].weight, 1.5);
  EXPECT_EQ(options.source(), "wikitext2:3,c4:1.5");
  options.nsamples = 1;
  try {
    options.size();
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_EQ(error.message(),
              "--calib wikitext2:3,c4:1.5: c4: expected at least one of the 1 windows for its "
              "weight, got none");
  }
  options.calib = "c4:2";
  EXPECT_EQ(options.source(), "c4");
  EXPECT_TRUE(options.size().parts.empty());
}

}  // namespace
}  // namespace billm

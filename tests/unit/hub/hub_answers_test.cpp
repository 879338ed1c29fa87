// The hub's answers: lists of files, indexes, headers; what is not well-formed is refused.
#include "billm/hub/hub_answers.h"

#include "billm/hub/hub_cache.h"
#include "unit/checkpoint/testing.h"

namespace billm {
namespace {

const std::string kCommit(40, 'a');

std::string listing(const std::string& siblings) {
  return R"({"sha": ")" + kCommit + R"(", "siblings": [)" + siblings + "]}";
}

TEST(HubAnswers, Listing) {
  const RepositoryListing list =
      parse_listing(listing(R"({"rfilename": "z", "size": 3}, {"rfilename": "a/b"},
                 {"rfilename": "c", "size": 1, "lfs": {"size": 9, "sha256": "x"}})"),
                    "answer");
  EXPECT_EQ(list.commit, kCommit);
  ASSERT_EQ(list.files.size(), 3u);
  EXPECT_EQ(list.files[0].path, "a/b");
  EXPECT_EQ(list.find("a/b")->size, std::nullopt);
  EXPECT_EQ(list.find("c")->size, 9);  // the content's, not the pointer's
  EXPECT_EQ(list.find("z")->size, 3);
  EXPECT_EQ(list.find("y"), nullptr);
  EXPECT_EQ(list.find(""), nullptr);
}

TEST(HubAnswers, WrongListings) {
  for (const char* siblings :
       {R"({"rfilename": "../a"})", R"({"rfilename": "/a"})", R"({"rfilename": "a//b"})",
        R"({"rfilename": ""})", R"({"rfilename": "a/."})", R"({"rfilename": "a\u0000b"})",
        R"({"rfilename": "a\nb"})", R"({"rfilename": "a\\..\\b"})", R"({"rfilename": 1})", "{}",
        "3", R"({"rfilename": "a"}, {"rfilename": "a"})"}) {
    expect_bad_input([&] { parse_listing(listing(siblings), "answer"); }, {"answer: "});
  }
  expect_bad_input([&] { parse_listing(R"({"sha": "main", "siblings": []})", "x"); }, {"sha"});
  expect_bad_input([&] { parse_listing(R"({"sha": 1, "siblings": []})", "x"); }, {"sha"});
  expect_bad_input([&] { parse_listing("{\"sha\": \"" + kCommit + "\"}", "x"); }, {"siblings"});
}

TEST(HubAnswers, IndexFiles) {
  EXPECT_EQ(parse_index_files(R"({"weight_map": {"b": "two", "a": "two", "c": "one"}})", "i"),
            (std::vector<std::string>{"one", "two"}));
  for (const char* json : {"{}", R"({"weight_map": {}})", R"({"weight_map": {"a": 1}})",
                           R"({"weight_map": {"a": "../b"}})", R"({"weight_map": {"a": "b/c"}})"}) {
    expect_bad_input([&] { parse_index_files(json, "i"); }, {"i: weight_map"});
  }
}

TEST(HubAnswers, Etags) {
  const std::string git(40, '0'), sha(64, 'f');
  EXPECT_EQ(parse_etag("\"" + git + "\""), git);
  EXPECT_EQ(parse_etag("W/\"" + sha + "\""), sha);
  EXPECT_EQ(parse_etag(sha), sha);
  for (const std::string& etag :
       {std::string(), std::string("\""), std::string("\"\""), git + "0", "\"" + git,
        std::string(40, 'A'), "../" + git, std::string(64, '/')}) {
    EXPECT_EQ(parse_etag(etag), std::nullopt) << etag;
  }
}

TEST(HubAnswers, Numbers) {
  EXPECT_EQ(parse_size("0"), 0);
  EXPECT_EQ(parse_size("4611686018427387903"), (int64_t{1} << 62) - 1);
  for (const char* text :
       {"", "-1", "+1", " 1", "1 ", "1x", "4611686018427387904", "99999999999999999999", "0x10"}) {
    EXPECT_EQ(parse_size(text), std::nullopt) << text;
  }
  const auto range = parse_content_range("bytes 10-19/20");
  ASSERT_TRUE(range.has_value());
  EXPECT_EQ(range->first, 10);
  EXPECT_EQ(range->last, 19);
  EXPECT_EQ(range->total, 20);
  for (const char* text : {"", "bytes", "bytes 1-2", "bytes */20", "bytes 5-4/20", "bytes 5-20/20",
                           "items 1-2/3", "bytes -1-2/3", "bytes 1-2/*", "bytes /-"}) {
    EXPECT_FALSE(parse_content_range(text).has_value()) << text;
  }
}

TEST(HubAnswers, Names) {
  for (const char* id : {"a", "org/name", "a.b_c-d/E1"}) EXPECT_TRUE(is_repository_id(id)) << id;
  for (const char* id : {"", "/", "a/", "/a", "a/b/c", "a--b", "a..b", ".a", "-a", "a.", "a-/b",
                         "a b", "a\n", "\xc3\xa4"}) {
    EXPECT_FALSE(is_repository_id(id)) << id;
  }
  EXPECT_FALSE(is_repository_id(std::string(97, 'a')));
  for (const char* path : {"a", "a/b.c", ".a", "a b", "\xc3\xa4"}) {
    EXPECT_TRUE(is_relative_path(path)) << path;
  }
  for (const char* path : {"", "/", "a/", "/a", "..", "a/../b", ".", "a\\b", "a\x7f"}) {
    EXPECT_FALSE(is_relative_path(path)) << path;
  }
  EXPECT_FALSE(is_relative_path(std::string(256, 'a')));
  EXPECT_TRUE(is_revision("refs/convert/parquet"));
  EXPECT_FALSE(is_revision("../main"));
}

}  // namespace
}  // namespace billm

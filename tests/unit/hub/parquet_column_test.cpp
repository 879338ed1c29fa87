// Parquet files written by Arrow, whole and damaged. Text protocols: tests/cli/hub_data_test.py.
#include "src/hub/parquet_column.h"

#include <arrow/array.h>
#include <arrow/builder.h>
#include <arrow/io/memory.h>
#include <arrow/table.h>
#include <parquet/arrow/writer.h>

#include <random>

#include "src/hub/gzip_lines.h"
#include "unit/checkpoint/testing.h"

namespace billm {
namespace {

std::string parquet_of(const std::vector<std::string>& rows) {
  arrow::StringBuilder builder;
  EXPECT_TRUE(builder.AppendValues(rows).ok());
  const auto array = builder.Finish().ValueOrDie();
  const auto table =
      arrow::Table::Make(arrow::schema({arrow::field("text", arrow::utf8())}), {array});
  const auto stream = arrow::io::BufferOutputStream::Create().ValueOrDie();
  EXPECT_TRUE(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), stream, 50).ok());
  return stream->Finish().ValueOrDie()->ToString();
}

std::vector<std::string> sample() {
  std::vector<std::string> rows;
  for (int i = 0; i < 200; ++i) rows.push_back(i % 3 == 0 ? "" : std::to_string(i * i) + " a\n");
  return rows;
}

TEST(ParquetColumn, RoundTrip) {
  const ScratchDirectory directory;
  const auto path = directory.write("x.parquet", parquet_of(sample()));
  EXPECT_EQ(read_parquet_column(path, "text"), sample());
  expect_bad_input([&] { read_parquet_column(path, "page"); },
                   {"x.parquet: expected a column \"page\", got text"});
  expect_bad_input([&] { read_parquet_column(directory.path() / "none", "text"); },
                   {"none: cannot read as parquet"});
}

// Any damage gives rows or one clear line.
TEST(ParquetColumn, FlippedBytes) {
  const ScratchDirectory directory;
  const std::string good = parquet_of(sample());
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string bad = good;
    for (int flips = 0; flips < 1 + i % 3; ++flips) {
      bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
    }
    if (i % 5 == 0) bad.resize(random() % bad.size());
    const auto path = directory.write("x.parquet", bad);
    try {
      read_parquet_column(path, "text");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(GzipLines, IsNotTakenForPlainText) {
  const ScratchDirectory directory;
  expect_bad_input([&] { GzipLines(directory.write("x.gz", "plain\n")); },
                   {"x.gz: cannot read as gzip: it is not compressed"});
  expect_bad_input([&] { GzipLines(directory.path()); }, {"expected a file"});
}

}  // namespace
}  // namespace billm

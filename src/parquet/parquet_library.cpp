// libbillm_parquet.so: parquet files by Arrow (why Arrow: docs/decisions/0010-hub.md).
#include "billm/hub/parquet_library.h"

#include <arrow/array.h>
#include <arrow/io/file.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/status.h>
#include <arrow/table.h>
#include <arrow/type.h>
#include <parquet/arrow/reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>

#include <exception>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/printable.h"

namespace billm {
namespace {

// A file may claim any size; the largest column that is read here has 11 MB.
constexpr int64_t kMostMemory = int64_t{2} << 30;

template <typename Array>
void append(const arrow::Array& chunk, const std::string& where, std::vector<std::string>& rows) {
  const auto& strings = static_cast<const Array&>(chunk);
  for (int64_t i = 0; i < strings.length(); ++i) {
    if (strings.IsNull(i)) {
      throw bad_input(where + ": row " + std::to_string(rows.size()) +
                      ": expected a string, got null");
    }
    rows.emplace_back(strings.GetView(i));
  }
}

// Lives as long as the process, since buffers may outlive their reader.
arrow::MemoryPool* memory() {
  static arrow::CappedMemoryPool pool(arrow::default_memory_pool(), kMostMemory);
  return &pool;
}

template <typename T>
T good(arrow::Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().message());
  return std::move(result).ValueUnsafe();
}

void check(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.message());
}

class ParquetFile {
 public:
  explicit ParquetFile(const std::string& path) : path_(path) {
    // No threads: reading ahead pays over a network only.
    parquet::ArrowReaderProperties properties(/*use_threads=*/false);
    properties.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    check(builder.Open(good(arrow::io::ReadableFile::Open(path_, memory())),
                       parquet::ReaderProperties(memory())));
    reader_ = good(builder.memory_pool(memory())->properties(properties)->Build());
  }

  std::vector<std::string> column(const std::string& name) {
    const parquet::SchemaDescriptor& schema = *reader_->parquet_reader()->metadata()->schema();
    const int index = schema.ColumnIndex(name);
    if (index < 0) {
      std::string names;
      for (int i = 0; i < schema.num_columns(); ++i) {
        names += (names.empty() ? "" : ", ") + schema.Column(i)->name();
      }
      throw bad_input(path_ + ": expected a column \"" + name + "\", got " + printable(names));
    }
    const auto table = good(reader_->ReadTable(std::vector<int>{index}));
    const auto& chunks = *table->column(0);
    const std::string where = path_ + ": " + name;
    std::vector<std::string> rows;
    for (const auto& chunk : chunks.chunks()) {
      switch (chunk->type_id()) {
        case arrow::Type::STRING:
          append<arrow::StringArray>(*chunk, where, rows);
          break;
        case arrow::Type::LARGE_STRING:
          append<arrow::LargeStringArray>(*chunk, where, rows);
          break;
        case arrow::Type::STRING_VIEW:
          append<arrow::StringViewArray>(*chunk, where, rows);
          break;
        default:
          throw bad_input(where + ": expected strings, got " + chunk->type()->ToString());
      }
    }
    return rows;
  }

 private:
  std::string path_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) void billm_read_parquet_column(
    const std::string& path, const std::string& column, ParquetColumn* result) {
  try {
    result->rows = ParquetFile(path).column(column);
  } catch (const Error& problem) {
    result->problem = problem.message();
    result->hint = problem.hint();
  } catch (const std::exception& problem) {  // of ours or of the library
    result->problem = path + ": cannot read as parquet: " + printable(problem.what());
    result->hint = "if the file is damaged remove it: it is downloaded again";
  }
}
static_assert(std::is_same_v<decltype(billm_read_parquet_column), ReadParquetColumn>);

}  // namespace billm

// See parquet_column.h.
#include "parquet_column.h"

#include <dlfcn.h>

#include "billm/base/error.h"
#include "billm/base/shared_library.h"
#include "billm/hub/parquet_library.h"

namespace billm {
namespace {

ReadParquetColumn* load_reader() {
  std::string why;
  void* const library = load_beside_program(kParquetLibrary, &why);
  void* const reader = library != nullptr ? dlsym(library, kParquetSymbol) : nullptr;
  if (reader == nullptr) {
    throw Error(ErrorCode::kFailure,
                "parquet files cannot be read: " +
                    (why.empty() ? std::string(kParquetLibrary) + ": is not of billm" : why),
                "it is built with the program and must lie beside it");
  }
  return reinterpret_cast<ReadParquetColumn*>(reader);
}

}  // namespace

std::vector<std::string> read_parquet_column(const std::filesystem::path& path,
                                             const std::string& column) {
  static ReadParquetColumn* const read = load_reader();
  ParquetColumn result;
  read(path.string(), column, &result);
  if (!result.problem.empty()) throw bad_input(result.problem, result.hint);
  return std::move(result.rows);
}

}  // namespace billm

// What libbillm_parquet.so does (src/parquet/): the program does not link Arrow, whose start would
// take a third of its own, but loads that library when it reads a parquet file.
#pragma once

#include <string>
#include <vector>

namespace billm {

inline constexpr const char* kParquetLibrary = "libbillm_parquet.so";
inline constexpr const char* kParquetSymbol = "billm_read_parquet_column";

struct ParquetColumn {
  std::vector<std::string> rows;
  std::string problem, hint;  // of an Error{kBadInput}; empty: there is none
};
// Of that symbol. Throws nothing.
using ReadParquetColumn = void(const std::string& path, const std::string& column,
                               ParquetColumn* result);

}  // namespace billm

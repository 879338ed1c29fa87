// The strings of one column of a parquet file, through Arrow's reader.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace billm {

// Row by row. Throws Error{kBadInput} if the file cannot be read, has no such column, or the column
// holds something else than strings.
std::vector<std::string> read_parquet_column(const std::filesystem::path& path,
                                             const std::string& column);

}  // namespace billm

// The row of factors coded on a trellis in the table of layouts: "trellis" (docs/format.md).
#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/checkpoint/json.h"
#include "billm/pack/packed_trellis.h"
#include "description.h"
#include "layouts.h"

namespace billm {
namespace {

const PackedTrellis& trellis_of(const PackedFactor& factor) {
  return std::get<PackedTrellis>(factor);
}

void describe_trellis(const PackedFactor& factor, nlohmann::ordered_json* json) {
  const TrellisFormat& format = trellis_of(factor).format;
  (*json)["rows"] = format.rows;
  (*json)["cols"] = format.cols;
  (*json)["rates"] = format.rates;
}

PackedFactor parse_trellis(const nlohmann::json& json, const std::string& where) {
  DescriptionReader reader(json, where);
  PackedTrellis packed;
  reader.text("layout");
  packed.format.rows = reader.number("rows");
  packed.format.cols = reader.number("cols");
  const nlohmann::json& rates = reader.array("rates");
  reader.finish();
  if (rates.size() > static_cast<size_t>(kMaxTrellisPlanes)) {
    throw bad_input(where + ": expected 1.." + std::to_string(kMaxTrellisPlanes) +
                    " rates of a trellis, got " + std::to_string(rates.size()));
  }
  for (const nlohmann::json& rate : rates) {
    if (!rate.is_number_integer() || rate < 1 || rate > kMaxTrellisRate) {
      throw bad_input(where + ": expected rates of a trellis in 1.." +
                      std::to_string(kMaxTrellisRate) + ", got " + printable(dump_json(rate)));
    }
    packed.format.rates.push_back(rate.get<int>());
  }
  check_trellis_format(packed.format, where);
  return packed;
}

int64_t bytes_of(TrellisFormat format, int64_t rows, int64_t cols) {
  format.rows = rows;
  format.cols = cols;
  int64_t bytes = 2 * rows;
  for (int p = 0; p < format.planes(); ++p) bytes += format.groups() * format.group_bytes(p);
  return bytes;
}

}  // namespace

const Layout kTrellisLayout = {
    .name = "trellis",
    .pack = [](const Factor& factor, int threads) -> PackedFactor {
      return pack(std::get<TrellisCodes>(factor), threads);
    },
    .describe = describe_trellis,
    .parse = parse_trellis,
    .without_planes = [](const PackedFactor& factor) -> PackedFactor {
      PackedTrellis packed;
      packed.format = trellis_of(factor).format;
      return packed;
    },
    .check = [](const PackedFactor& factor,
                const std::string& where) { check_packed(trellis_of(factor), where); },
    .decode =
        [](const PackedFactor& factor, int threads) {
          const PackedTrellis& packed = trellis_of(factor);
          const int64_t rows = packed.format.rows, cols = packed.format.cols;
          DecodedFactor decoded = {
              rows, cols, std::vector<float>(static_cast<size_t>(rows * cols)), {}};
          decode(packed, threads, decoded.matrix.data());
          return decoded;
        },
    .unpack = [](const PackedFactor& factor) -> Factor { return unpack(trellis_of(factor)); },
    .scaled_bytes = [](const PackedFactor& like, int64_t rows,
                       int64_t cols) { return bytes_of(trellis_of(like).format, rows, cols); },
    .unsupported = [](const PackedFactor&) { return std::string(); },
    .first_version = 2,
};

}  // namespace billm

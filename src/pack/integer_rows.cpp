// See include/billm/pack/integer_rows.h.
#include "billm/pack/integer_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "billm/base/error.h"
#include "billm/base/half.h"
#include "billm/base/json_text.h"
#include "billm/base/parallel.h"
#include "billm/checkpoint/dtype.h"
#include "billm/checkpoint/json.h"
#include "description.h"

namespace billm {
namespace {

constexpr const char* kLayout = "integer_rows";
constexpr const char* kCodes = "codes";
constexpr const char* kScales = "scales";
constexpr int64_t kBlockOf4Bits = 32;
constexpr int64_t kTileRows = 64;  // rounded by a thread at a time

// Largest weights of a group in units of the scale, of which the best is taken with 4 bits.
// Integers are -8..7: from 7, which cuts nothing off, to less, which cuts the largest weights off
// and has finer steps for all others.
constexpr float kLargest[] = {7.0f, 7.5f, 8.0f, 8.5f, 9.0f};

int zero_of(int bits) { return 1 << (bits - 1); }

uint16_t load_half(const std::byte* bytes, int64_t index) {
  uint16_t half = 0;
  std::memcpy(&half, bytes + 2 * index, 2);
  return half;
}

struct PlaneShape {
  const char* name;
  const char* dtype;
  std::vector<int64_t> shape;
  int64_t bytes;
};

std::vector<PlaneShape> plane_shapes(const IntegerRows& rows) {
  return {{kCodes, "U8", {rows.rows, rows.row_bytes()}, rows.rows * rows.row_bytes()},
          {kScales, "F16", {rows.rows, rows.groups()}, 2 * rows.rows * rows.groups()}};
}

// The integer nearest to `weight` in steps of `scale`.
float nearest(float weight, float scale, int bits) {
  if (scale == 0) return 0;
  // With 8 bits -128 is not used: both signs are treated alike.
  const auto most = static_cast<float>(zero_of(bits) - 1);
  return std::clamp(std::nearbyint(weight / scale), bits == 4 ? -most - 1 : -most, most);
}

// The scale of a group, rounded to fp16.
float choose_scale(const float* weight, int64_t count, int bits) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(weight[i]));
  if (bits == kMostRowBits) return round_to_half(largest / 127.0f);
  float best = 0;
  double least = -1;
  for (const float steps : kLargest) {
    const float scale = round_to_half(largest / steps);
    double error = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double missed =
          static_cast<double>(weight[i] - nearest(weight[i], scale, bits) * scale);
      error += missed * missed;
    }
    if (least < 0 || error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

// Without planes.
IntegerRows without_planes(int64_t rows, int64_t cols, int bits) {
  IntegerRows shape;
  shape.rows = rows;
  shape.cols = cols;
  shape.bits = bits;
  shape.block_size = row_block_size(cols, bits);
  return shape;
}

}  // namespace

int64_t IntegerRows::bytes() const {
  int64_t total = 0;
  for (const Plane& plane : planes) total += static_cast<int64_t>(plane.bytes.size());
  return total;
}

double IntegerRows::stored_bits() const {
  return 8.0 * static_cast<double>(bytes()) / static_cast<double>(rows * cols);
}

int IntegerRows::code(int64_t row, int64_t col) const {
  const std::byte* codes = planes[0].bytes.data() + row * row_bytes();
  if (bits == kMostRowBits) return static_cast<int>(codes[col]) - zero_of(bits);
  const int pair = static_cast<int>(codes[col / 2]);
  return (col % 2 == 0 ? pair & 15 : pair >> 4) - zero_of(bits);
}

float IntegerRows::scale(int64_t row, int64_t group) const {
  return half_to_float(load_half(planes[1].bytes.data(), row * groups() + group));
}

int64_t row_block_size(int64_t cols, int bits) {
  return bits == kMostRowBits ? cols : std::min(cols, kBlockOf4Bits);
}

int64_t integer_rows_bytes(int64_t rows, int64_t cols, int bits) {
  int64_t bytes = 0;
  for (const PlaneShape& plane : plane_shapes(without_planes(rows, cols, bits))) {
    bytes += plane.bytes;
  }
  return bytes;
}

IntegerRows make_integer_rows(int64_t rows, int64_t cols, int bits) {
  IntegerRows made = without_planes(rows, cols, bits);
  for (const PlaneShape& plane : plane_shapes(made)) {
    made.owned.emplace_back(static_cast<size_t>(plane.bytes));
    made.planes.push_back({plane.name, plane.dtype, plane.shape, made.owned.back()});
  }
  return made;
}

RoundingError round_rows(const float* weight, int64_t first, int64_t count, int threads,
                         const std::string& where, IntegerRows* to) {
  const int64_t cols = to->cols, groups = to->groups(), block = to->block_size;
  const int bits = to->bits, zero = zero_of(bits);
  std::vector<RoundingError> errors(static_cast<size_t>(count));
  parallel_parts(count, kTileRows, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = weight + row * cols;
      std::byte* codes = to->owned[0].data() + (first + row) * to->row_bytes();
      RoundingError& sum = errors[static_cast<size_t>(row)];
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t start = group * block, stop = std::min(cols, start + block);
        const float scale = choose_scale(from + start, stop - start, bits);
        const uint16_t half = float_to_half(scale);
        if (!std::isfinite(scale)) {
          throw bad_input(where + ": row " + std::to_string(first + row) +
                              ": a weight is too large for integers with a scale in fp16",
                          "keep this matrix in 16 bits");
        }
        std::memcpy(to->owned[1].data() + 2 * ((first + row) * groups + group), &half, 2);
        for (int64_t i = start; i < stop; ++i) {
          const float place = nearest(from[i], scale, bits);
          const auto code = static_cast<unsigned>(static_cast<int>(place) + zero);
          if (bits == kMostRowBits) {
            codes[i] = static_cast<std::byte>(code);
          } else {
            codes[i / 2] |= static_cast<std::byte>(i % 2 == 0 ? code : code << 4);
          }
          const auto missed = static_cast<double>(from[i] - place * scale);
          sum.error += missed * missed;
          sum.total += static_cast<double>(from[i]) * static_cast<double>(from[i]);
        }
      }
    }
  });
  RoundingError all;
  for (const RoundingError& row : errors) {
    all.error += row.error;
    all.total += row.total;
  }
  return all;
}

std::string describe(const IntegerRows& rows) {
  return dump_json(nlohmann::ordered_json({{"layout", kLayout},
                                           {"rows", rows.rows},
                                           {"cols", rows.cols},
                                           {"bits", rows.bits},
                                           {"block_size", rows.block_size}}));
}

bool describes_integer_rows(const std::string& description) {
  const nlohmann::json json = parse_json_or_discard(description);
  return json.is_object() && json.contains("layout") && json["layout"] == kLayout;
}

IntegerRows parse_integer_rows(const std::string& description, const std::string& where) {
  const nlohmann::json json = parse_json_object(description, where + ": description");
  DescriptionReader reader(json, where);
  reader.text("layout");
  IntegerRows rows;
  rows.rows = reader.number("rows");
  rows.cols = reader.number("cols");
  rows.bits = static_cast<int>(reader.number("bits"));
  rows.block_size = reader.number("block_size");
  reader.finish();
  const auto expect = [&](bool right, const std::string& what, int64_t got) {
    if (!right) {
      throw bad_input(where + ": expected " + what + " in its description, got " +
                      std::to_string(got));
    }
  };
  expect(rows.rows >= 1, "rows of at least 1", rows.rows);
  expect(rows.cols >= 1, "cols of at least 1", rows.cols);
  expect(rows.bits == kFewestRowBits || rows.bits == kMostRowBits, "4 or 8 bits", rows.bits);
  expect(rows.block_size >= 1 && rows.block_size <= rows.cols, "a block_size in 1..cols",
         rows.block_size);
  return rows;
}

void check_integer_rows(const IntegerRows& rows, const std::string& where) {
  const std::vector<PlaneShape> shapes = plane_shapes(rows);
  for (const Plane& plane : rows.planes) {
    if (std::none_of(shapes.begin(), shapes.end(),
                     [&](const PlaneShape& shape) { return plane.name == shape.name; })) {
      throw bad_input(where + "." + printable(plane.name) +
                      ": expected no such plane in this module");
    }
  }
  if (rows.planes.size() != shapes.size()) {
    throw bad_input(where + ": expected the planes codes and scales, got " +
                        std::to_string(rows.planes.size()) + " planes",
                    "the packed model is damaged: copy or quantize it again");
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    const Plane& plane = rows.planes[i];
    if (plane.dtype != shapes[i].dtype || plane.shape != shapes[i].shape) {
      throw bad_input(where + "." + shapes[i].name + ": expected " + shapes[i].dtype + " " +
                      shape_text(shapes[i].shape) + ", got " + plane.dtype + " " +
                      shape_text(plane.shape));
    }
  }
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t group = 0; group < rows.groups(); ++group) {
      const float scale = rows.scale(row, group);
      if (std::isfinite(scale) && !std::signbit(scale)) continue;
      throw bad_input(where + ".scales: row " + std::to_string(row) +
                      ": expected finite numbers >= 0");
    }
  }
  if (rows.bits != kFewestRowBits || rows.cols % 2 == 0) return;
  for (int64_t row = 0; row < rows.rows; ++row) {
    const std::byte last =
        rows.planes[0].bytes[static_cast<size_t>((row + 1) * rows.row_bytes() - 1)];
    if (static_cast<int>(last) >> 4 != 0) {
      throw bad_input(where + ".codes: row " + std::to_string(row) +
                      ": expected zero padding bits");
    }
  }
}

void decode_rows(const IntegerRows& rows, int64_t first, int64_t count, float* out) {
  for (int64_t row = first; row < first + count; ++row) {
    for (int64_t group = 0; group < rows.groups(); ++group) {
      const int64_t start = group * rows.block_size;
      const int64_t stop = std::min(rows.cols, start + rows.block_size);
      const float scale = rows.scale(row, group);
      for (int64_t col = start; col < stop; ++col) {
        *out++ = static_cast<float>(rows.code(row, col)) * scale;
      }
    }
  }
}

RegionCodes region_codes(const IntegerRows& rows, int64_t first, int64_t count, int most_block) {
  RegionFormat shape;
  shape.rows = count;
  shape.cols = rows.cols;
  // Groups of the layer lie inside those of the rows.
  const auto most = static_cast<int64_t>(most_block);
  shape.block_size =
      static_cast<int>(rows.block_size == rows.cols ? std::min(most, rows.cols) : rows.block_size);
  shape.classes = shape.salient_classes = 0;
  shape.integer_bits = rows.bits;
  shape.scale_format = ScaleFormat::kF16;
  RegionCodes out = make_region_codes(shape);
  const int zero = zero_of(rows.bits);
  std::fill(out.region.begin(), out.region.end(), static_cast<uint8_t>(shape.integer_region()));
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t col = 0; col < rows.cols; ++col) {
      out.code[static_cast<size_t>(row * rows.cols + col)] =
          static_cast<uint8_t>(rows.code(first + row, col) + zero);
    }
    for (int64_t group = 0; group < shape.groups(); ++group) {
      const auto at = static_cast<size_t>(out.step_index(group, row));
      out.step[at] = rows.scale(first + row, group * shape.block_size / rows.block_size);
      out.zero[at] = static_cast<uint8_t>(zero);
    }
  }
  return out;
}

}  // namespace billm

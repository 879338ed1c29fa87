// Packing into the layout "planes" (docs/format.md). Every stream's place in its plane is known
// before a row is packed, so the rows are shared between threads. A row's weights are first sorted
// into the streams, a byte each and without branches, and then written eight or five at a time:
// four (4:8 masks) to six times as fast on one core of a Xeon with AVX-512, check_codes included,
// as weight by weight.
#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/pack/packed_planes.h"
#include "integer_index.h"
#include "planes.h"

namespace billm {
namespace {

constexpr int64_t kRows = 32;     // that a thread takes at a time
constexpr int64_t kPart = 4096;   // scales
constexpr int64_t kWords = 1024;  // words of the mask: a multiple of 8, whole bytes

class PlanesPacker {
 public:
  PlanesPacker(const RegionCodes& linear, int threads)
      : linear_(linear), shape_(linear.shape), geometry_(linear.shape), threads_(threads) {}

  PackedPlanes pack() {
    for (int64_t col = 0; col < static_cast<int64_t>(linear_.salient.size()); ++col) {
      if (linear_.salient[col] != 0) salient_columns_.push_back(col);
    }
    IntegerIndex index;
    PlaneCounts counts;
    counts.salient_columns = static_cast<int64_t>(salient_columns_.size());
    if (shape_.scattered) {
      index = make_integer_index(linear_, threads_);
      integers_before_ = sums(index.integers);
      counts.integers = integers_before_.back();
      counts.index_entries = sums(index.entries).back();
    }
    allocate(index.bits, counts);
    pack_weights();
    pack_mask();
    pack_levels();
    if (shape_.scattered) {
      put_counts("integer_counts", index.integers);
      if (index.bits > 0) put_counts("index_counts", index.entries);
      put_bytes("index", std::as_bytes(std::span(index.bytes)));
    }
    return std::move(packed_);
  }

 private:
  static std::vector<int64_t> sums(const std::vector<int64_t>& counts) {
    std::vector<int64_t> before = {0};
    for (const int64_t count : counts) before.push_back(before.back() + count);
    return before;
  }

  void allocate(int index_bits, const PlaneCounts& counts) {
    packed_.shape = shape_;
    packed_.index_bits = index_bits;
    for (PlaneSpec& spec : plane_specs(shape_, index_bits, counts)) {
      packed_.owned.emplace_back(static_cast<size_t>(spec.bytes));
      packed_.planes.push_back({spec.name, spec.dtype, spec.shape, packed_.owned.back()});
    }
  }

  // The bytes of a plane; null if the layer has none of this name.
  std::byte* plane(const char* name) {
    for (size_t i = 0; i < packed_.planes.size(); ++i) {
      if (packed_.planes[i].name == name) return packed_.owned[i].data();
    }
    return nullptr;
  }

  void put_bytes(const char* name, std::span<const std::byte> bytes) {
    const Plane* to = packed_.find(name);
    if (to == nullptr || to->bytes.size() != bytes.size()) {
      throw Error(ErrorCode::kFailure, std::string("packing: plane ") + name + " has a wrong size");
    }
    std::copy(bytes.begin(), bytes.end(), plane(name));
  }

  void put_counts(const char* name, const std::vector<int64_t>& counts) {
    if (short_counts(shape_)) {
      const std::vector<uint16_t> values(counts.begin(), counts.end());
      put_bytes(name, std::as_bytes(std::span(values)));
    } else {
      const std::vector<uint32_t> values(counts.begin(), counts.end());
      put_bytes(name, std::as_bytes(std::span(values)));
    }
  }

  // A row's weights by stream, a byte each.
  struct Streams {
    explicit Streams(int64_t cols) : signs(cols), digits(cols), integers(cols) {}
    std::vector<uint8_t> signs, digits, integers;
  };

  void pack_weights() {
    signs_ = plane("signs");
    classes_ = plane("classes");
    integers_ = plane("integers");
    for (int r = 1; r <= shape_.regions(); ++r) {
      class_of_[r] = static_cast<uint8_t>(r > shape_.classes ? r - 1 - shape_.classes : r - 1);
      is_binary_[r] = 1;
    }
    parallel_parts(shape_.rows, kRows, threads_, [&](int64_t first, int64_t end) {
      Streams streams(shape_.cols);
      for (int64_t row = first; row < end; ++row) pack_row(row, &streams);
    });
  }

  void pack_row(int64_t row, Streams* streams) {
    const int64_t cols = shape_.cols;
    const uint8_t* region = linear_.region.data() + row * cols;
    const uint8_t* code = linear_.code.data() + row * cols;
    if (shape_.all_integers()) {
      const std::span<const uint8_t> values(code, static_cast<size_t>(cols));
      put_fields(integers_, row * cols * shape_.integer_bits, values, shape_.integer_bits);
      return;
    }
    const int64_t integers_before = shape_.scattered ? integers_before_[row] : 0;
    const int64_t first = row * geometry_.row_kept - integers_before;
    std::span<const uint8_t> signs(code, static_cast<size_t>(cols));
    std::span<uint8_t> digits(streams->digits);
    if (geometry_.salient_digits()) {  // every weight is kept and binary
      digits = digits.first(salient_columns_.size());
      for (size_t i = 0; i < digits.size(); ++i) digits[i] = class_of_[region[salient_columns_[i]]];
    } else if (geometry_.row_kept == cols && !shape_.scattered) {
      if (classes_ != nullptr) {
        for (int64_t col = 0; col < cols; ++col) digits[col] = class_of_[region[col]];
      }
    } else {
      int64_t binary = 0, integers = 0;
      for (int64_t col = 0; col < cols; ++col) {
        const uint8_t r = region[col];
        streams->signs[binary] = code[col];
        digits[binary] = class_of_[r];
        streams->integers[integers] = code[col];
        const int64_t is_binary = is_binary_[r];
        binary += is_binary;
        integers += static_cast<int64_t>(r != kPrunedRegion) - is_binary;
      }
      signs = std::span(streams->signs).first(static_cast<size_t>(binary));
      digits = digits.first(static_cast<size_t>(binary));
      if (shape_.scattered) {
        put_fields(integers_, integers_before * shape_.integer_bits,
                   std::span(streams->integers).first(static_cast<size_t>(integers)),
                   shape_.integer_bits);
      }
    }
    put_fields(signs_, first, signs, 1);
    const int64_t first_digit =
        geometry_.salient_digits() ? row * static_cast<int64_t>(digits.size()) : first;
    if (geometry_.class_radix == 2) put_fields(classes_, first_digit, digits, 1);
    if (geometry_.class_radix == 3) put_trits(classes_, first_digit, digits);
  }

  void pack_mask() {
    std::byte* const mask = plane("mask");
    if (mask == nullptr) return;
    const int m = shape_.nm.m;
    const MaskWords& words = geometry_.words;
    const std::vector<uint16_t> ranks = mask_ranks(m);
    const auto rank_at = [&](int64_t row, int64_t first, int columns) {
      const uint8_t* region = linear_.region.data() + row * shape_.cols + first;
      unsigned kept = 0;
      for (int c = 0; c < columns; ++c) {
        kept |= static_cast<unsigned>(region[c] != kPrunedRegion) << c;
      }
      return ranks[kept];
    };
    const int64_t groups = geometry_.full_groups * shape_.rows;
    parallel_parts(geometry_.full_words, kWords, threads_, [&](int64_t first, int64_t end) {
      int64_t group = first * words.ranks;
      int64_t row = group / geometry_.full_groups, g = group % geometry_.full_groups;
      for (int64_t word = first; word < end; ++word) {
        uint64_t value = 0, place = 1;
        for (int i = 0; i < words.ranks && group < groups; ++i, ++group) {
          value += place * rank_at(row, g * m, m);
          place *= words.combinations;
          if (++g == geometry_.full_groups) {
            g = 0;
            ++row;
          }
        }
        put_bits(mask, word * words.bits, value, words.bits);
      }
    });
    if (geometry_.tail_columns == 0) return;
    for (int64_t row = 0; row < shape_.rows; ++row) {
      put_bits(mask, geometry_.full_words * words.bits + row * geometry_.tail_bits,
               rank_at(row, geometry_.full_groups * m, geometry_.tail_columns),
               geometry_.tail_bits);
    }
  }

  // Everything that is not one of the weights' own bits.
  void pack_levels() {
    if (std::byte* const salient = plane("salient")) put_fields(salient, 0, linear_.salient, 1);
    put_halves(linear_.step, plane("steps"));
    if (!linear_.zero.empty()) put_fields(plane("zeros"), 0, linear_.zero, shape_.integer_bits);
    put_halves(linear_.column_scale, plane("column_scales"));
    const ScaleFormat format = shape_.scale_format;
    if (format == ScaleFormat::kLog8 && plane("base") != nullptr) {
      put_bytes("base", std::as_bytes(std::span(&linear_.base, 1)));
    }
    std::byte* const scales = plane("scales");
    std::byte* const offsets = plane("offsets");
    if (format == ScaleFormat::kF16) {
      put_halves(linear_.scale, scales);
      put_halves(linear_.offset, offsets);
    } else if (format == ScaleFormat::kF32) {
      put_each<float>(linear_.scale, scales, [](float value, int64_t) { return value; });
      put_each<float>(linear_.offset, offsets, [](float value, int64_t) { return value; });
    } else {
      put_each<uint8_t>(linear_.scale, scales,
                        [&](float value, int64_t) { return log8_encode(value, linear_.base); });
      put_each<int8_t>(linear_.offset, offsets,
                       [&](float value, int64_t i) { return offset_code(value, i); });
    }
  }

  // In units of the largest scale of its row and group.
  int8_t offset_code(float value, int64_t index) const {
    const int64_t per_group = shape_.offset_kind == OffsetKind::kBlock ? 1 : shape_.regions();
    const int64_t group = index / (per_group * shape_.rows), row = index % shape_.rows;
    float largest = 0;
    for (int r = 1; r <= shape_.regions(); ++r) {
      largest = std::max(largest, linear_.scale[linear_.scale_index(group, r, row)]);
    }
    const int8_t code = offset8_encode(value, largest);
    if (offset8_decode(code, largest) != value) {
      throw Error(ErrorCode::kFailure, "quantized layer is inconsistent: an offset is not exact");
    }
    return code;
  }

  void put_halves(const std::vector<float>& values, std::byte* to) {
    put_each<uint16_t>(values, to, [](float value, int64_t) { return float_to_half(value); });
  }
  template <typename T, typename Encode>
  void put_each(const std::vector<float>& values, std::byte* to, Encode encode) {
    parallel_parts(static_cast<int64_t>(values.size()), kPart, threads_,
                   [&](int64_t first, int64_t end) {
                     for (int64_t i = first; i < end; ++i) {
                       const T code = encode(values[i], i);
                       std::memcpy(to + i * static_cast<int64_t>(sizeof(T)), &code, sizeof(T));
                     }
                   });
  }

  const RegionCodes& linear_;
  const RegionFormat& shape_;
  const PlanesGeometry geometry_;
  const int threads_;
  std::vector<int64_t> salient_columns_;
  std::vector<int64_t> integers_before_;  // [rows + 1], with scattered integers
  std::array<uint8_t, 256> class_of_{}, is_binary_{};
  std::byte *signs_ = nullptr, *classes_ = nullptr, *integers_ = nullptr;
  PackedPlanes packed_;
};

}  // namespace

PackedPlanes pack(const RegionCodes& codes, int threads) {
  check_codes(codes, threads);
  return PlanesPacker(codes, threads).pack();
}

}  // namespace billm

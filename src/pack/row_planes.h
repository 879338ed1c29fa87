// The planes of a row, from the file's bit streams to the bytes of a tile.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/plane_tiles.h"
#include "planes.h"
#include "run_order.h"

namespace billm {

// The bits of one row's planes in run order.
class RowPlanes {
 public:
  RowPlanes(const PlanesView& view, const RunOrder& order)
      : view_(view), order_(order), words_(order.source.size()) {}

  // `integer` is called with (column, code) of the row's scattered integers, in order.
  template <typename Integer>
  void fill(int64_t row, Integer integer) {
    std::fill(words_.begin(), words_.end(), uint8_t{0});
    const RegionFormat& shape = view_.shape;
    const int32_t* place = order_.place.data();
    const auto set = [&](int64_t col, uint32_t word) {
      words_[static_cast<size_t>(place[col])] = static_cast<uint8_t>(word);
    };
    if (shape.all_integers()) {
      for (int64_t col = 0; col < shape.cols; ++col) {
        set(col, static_cast<uint32_t>(view_.integer(row * shape.cols + col)));
      }
      return;
    }
    // The bits of class index t (0 the smallest level, pruned or not) and sign s: plane 0 is s,
    // plane j is s if t >= j, else not s.
    const auto word = [](int t, bool sign) {
      const uint32_t above = (uint32_t{1} << (t + 1)) - 1;  // bits 0..t
      return static_cast<uint8_t>(sign ? above : ~above);
    };
    if (!shape.scattered) {
      const int lowest = shape.nm.active() ? 1 : 0;
      std::array<uint8_t, 16> words{};  // [kept][t][sign]
      for (int t = 0; t < 4; ++t) {
        words[2 * t] = words[2 * t + 1] = 1;  // pruned: s = +1, class below all others
        for (const int sign : {0, 1}) words[8 + 2 * t + sign] = word(lowest + t, sign != 0);
      }
      view_.visit_row(row, &buffers_, [&](int64_t col, int kept, int t, bool sign) {
        set(col, words[8 * kept + 2 * t + (sign ? 1 : 0)]);
      });
      return;
    }
    PlanesView::Cursor cursor = view_.start_row(row, &buffers_.kept);
    view_.visit(
        0, shape.cols, buffers_.kept, &cursor,
        [&](int64_t col, int r, bool sign) { set(col, word(r, sign)); },
        [&](int64_t col, int code) {
          set(col, word(0, false));  // minus the smallest level: ScatteredView::shift takes it off
          integer(col, code);
        });
  }

  // Writes the planes of a group, as row `row` of a tile.
  void store(const kernels::PlaneGroup& group, const kernels::TileOrder& order, int row,
             uint8_t* tile) const {
    const int64_t line_bytes = order.line_bytes();
    uint8_t* to = tile + kernels::plane_byte(order, group, 0, group.first_octet, row);
    const uint8_t* words = words_.data() + 8 * int64_t{group.first_octet};
    for (int32_t octet = 0; octet < group.octets; octet += order.interleave) {
      for (int i = 0; i < order.interleave; ++i, words += 8) {
        uint64_t eight;
        std::memcpy(&eight, words, 8);
        if (group.stored == group.planes) {
          for (int p = 0; p < group.stored; ++p) to[p * line_bytes + i] = bits(eight, p);
        } else {
          store_folded(eight, line_bytes, to + i);
        }
      }
      to += group.stored * line_bytes;
    }
  }

 private:
  // Bit `plane` of each of eight words: bit i of the result is of word i.
  static uint8_t bits(uint64_t words, int plane) {
    constexpr uint64_t kLowest = 0x0101010101010101u, kGather = 0x0102040810204080u;
    return static_cast<uint8_t>(((words >> plane) & kLowest) * kGather >> 56);
  }
  // The inverse of kernels::unfold().
  static void store_folded(uint64_t words, int64_t line_bytes, uint8_t* to) {
    const int sign = bits(words, 0);
    const auto level_at_least = [&](int j) { return ~(sign ^ bits(words, j)); };
    const int high = level_at_least(2);
    to[0] = static_cast<uint8_t>(sign);
    to[line_bytes] = static_cast<uint8_t>((level_at_least(1) & ~high) | level_at_least(3));
    to[2 * line_bytes] = static_cast<uint8_t>(high);
  }

  const PlanesView& view_;
  const RunOrder& order_;
  PlanesView::RowBuffers buffers_;
  std::vector<uint8_t> words_;  // by place: bit p is the weight's bit of plane p
};

}  // namespace billm

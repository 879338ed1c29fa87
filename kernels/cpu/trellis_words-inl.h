// Trellis states by vectors, lookups one by one, for machines without AVX-512 VBMI: a table of 256
// bytes would take 16 shuffles of 16 bytes and 15 blends, twice for an entry, and that is slower.
//
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_TRELLIS_WORDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_TRELLIS_WORDS_INL_H_
#undef BILLM_TRELLIS_WORDS_INL_H_
#else
#define BILLM_TRELLIS_WORDS_INL_H_
#endif

#include <algorithm>

#include "hwy/highway.h"
#include "kernels/cpu/trellis_gemv.h"

#if HWY_TARGET > HWY_AVX3_DL && HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D8 = hn::CappedTag<uint8_t, 32>;
using V8 = hn::Vec<D8>;
using D8to16 = hn::RepartitionToWide<D8>;

constexpr bool kSplit = false;  // tables of int16
constexpr int kStateBytes = hn::MaxLanes(D8());
constexpr int kTilesAtOnce = 1;

// Where ChunkSums puts a row.
constexpr int Place(int row) { return row; }

// Makes the states of a vector of rows from the bytes of a group. 16 rows begin at a byte: the two
// bytes in which a state lies are brought into a number of 16 bits, the first one on top, and
// shifted by a product.
struct StatePlaces {
  alignas(16) uint8_t place[kMaxTrellisRate + 1][2][16] = {};  // of even rows, of odd ones
  alignas(16) uint16_t factor[kMaxTrellisRate + 1][2][8] = {};
  constexpr StatePlaces() {
    for (int k = 1; k <= kMaxTrellisRate; ++k) {
      for (int row = 0; row < 16; ++row) {
        const int byte = k * row / 8, at = row / 2 * 2;
        place[k][row % 2][at] = static_cast<uint8_t>(byte + 1);
        place[k][row % 2][at + 1] = static_cast<uint8_t>(byte);
        factor[k][row % 2][row / 2] = static_cast<uint16_t>(1 << (k * row % 8));
      }
    }
  }
};
constexpr StatePlaces kStatePlaces;

class StateReader {
 public:
  explicit StateReader(int k) : k_(k) {}
  // Of the rows from `row` on, a multiple of 16.
  HWY_INLINE V8 read(const uint8_t* bytes, int row) const {
    const D8 d8;
    const D8to16 d16;
    bytes += row / 8 * k_;
#if HWY_TARGET <= HWY_AVX2
    const hn::Half<D8> half;
    const V8 all = hn::Combine(d8, hn::LoadU(half, bytes + 2 * k_), hn::LoadU(half, bytes));
#else
    const V8 all = hn::LoadU(d8, bytes);
#endif
    const auto pairs = [&](int odd) HWY_ATTR {
      const V8 two = hn::TableLookupBytes(all, hn::LoadDup128(d8, kStatePlaces.place[k_][odd]));
      return hn::Mul(hn::BitCast(d16, two), hn::LoadDup128(d16, kStatePlaces.factor[k_][odd]));
    };
    const auto even = hn::ShiftRight<8>(pairs(0));
    return hn::BitCast(d8, hn::Or(even, hn::And(pairs(1), hn::Set(d16, uint16_t{0xff00}))));
  }

 private:
  const int k_;
};

inline void ReadStates(const StateReader& reader, const uint8_t* bytes, uint8_t* states) {
  for (int row = 0; row < kTrellisTileRows; row += kStateBytes) {
    hn::Store(reader.read(bytes, row), D8(), states + row);
  }
}

// out[row] = table[states[row]] for 64 rows.
inline void LookUp64(const uint8_t* table, const uint8_t* states, uint8_t* out) {
  for (int i = 0; i < kTrellisTileRows; ++i) out[i] = table[states[i]];
}

// sums[row] += the entries of kGroups groups.
template <int kGroups>
HWY_INLINE void AddGroups(const StateReader& reader, const uint8_t* bytes, int64_t group_bytes,
                          const uint16_t* tables, uint16_t* sums) {
  alignas(64) uint8_t states[kGroups][kTrellisTileRows];
  for (int g = 0; g < kGroups; ++g) ReadStates(reader, bytes + g * group_bytes, states[g]);
  for (int i = 0; i < kTrellisTileRows; ++i) {
    uint16_t sum = tables[states[0][i]];
    for (int g = 1; g < kGroups; ++g) {
      sum = static_cast<uint16_t>(sum + tables[g * kTrellisStates + states[g][i]]);
    }
    sums[i] = static_cast<uint16_t>(sums[i] + sum);
  }
}

// sums[row] = the sum of the entries of `groups` groups, of one tile.
template <int kTiles>
void ChunkSums(const StateReader& reader, int64_t group_bytes, const uint8_t* bytes,
               int64_t tile_bytes, int64_t groups, const uint8_t* tables, int16_t* sums) {
  static_assert(kTiles == 1);
  (void)tile_bytes;
  const auto* entries = reinterpret_cast<const uint16_t*>(tables);
  auto* to = reinterpret_cast<uint16_t*>(sums);
  std::fill_n(to, kTrellisTileRows, uint16_t{0});
  int64_t g = 0;
  for (; g + 4 <= groups; g += 4) {
    AddGroups<4>(reader, bytes + g * group_bytes, group_bytes, entries + g * kTrellisStates, to);
  }
  for (; g < groups; ++g) {
    AddGroups<1>(reader, bytes + g * group_bytes, group_bytes, entries + g * kTrellisStates, to);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();
#endif

#endif

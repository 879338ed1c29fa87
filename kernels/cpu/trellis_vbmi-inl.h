// Trellis states and lookups with AVX-512 VBMI: 64 rows in a vector.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_TRELLIS_VBMI_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_TRELLIS_VBMI_INL_H_
#undef BILLM_TRELLIS_VBMI_INL_H_
#else
#define BILLM_TRELLIS_VBMI_INL_H_
#endif

#include <algorithm>

#include "hwy/highway.h"
#include "kernels/cpu/trellis_gemv.h"

#if HWY_TARGET <= HWY_AVX3_DL
HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

constexpr bool kSplit = true;    // tables of two bytes an entry
constexpr int kStateBytes = 64;  // of a vector of states
constexpr int kTilesAtOnce = 4;  // as many share the loads of a table

// Where ChunkSums puts a row: the even rows, then the odd ones.
constexpr int Place(int row) { return row % 2 * (kStateBytes / 2) + row / 2; }

// Makes the states of a tile's 64 rows from the bytes of a group. Eight rows begin at a byte, 8
// rows of at most 36 bits: vpermb brings those of each eight into a number of 64 bits, the first
// byte on top, of which vpmultishiftqb takes eight times eight bits.
struct StatePlaces {
  alignas(64) uint8_t place[kMaxTrellisRate + 1][64] = {};
  alignas(64) uint8_t shift[kMaxTrellisRate + 1][64] = {};
  constexpr StatePlaces() {
    for (int k = 1; k <= kMaxTrellisRate; ++k) {
      for (int i = 0; i < 64; ++i) {
        place[k][i] = static_cast<uint8_t>(i / 8 * k + 7 - i % 8);
        shift[k][i] = static_cast<uint8_t>(56 - i % 8 * k);
      }
    }
  }
};
constexpr StatePlaces kStatePlaces;

class StateReader {
 public:
  explicit StateReader(int k)
      : place_(_mm512_load_si512(kStatePlaces.place[k])),
        shift_(_mm512_load_si512(kStatePlaces.shift[k])) {}
  HWY_INLINE __m512i read(const uint8_t* bytes) const {
    return _mm512_multishift_epi64_epi8(shift_,
                                        _mm512_permutexvar_epi8(place_, _mm512_loadu_si512(bytes)));
  }

 private:
  __m512i place_, shift_;
};

// 256 bytes.
struct ByteTable {
  HWY_INLINE explicit ByteTable(const uint8_t* table) {
    for (int i = 0; i < 4; ++i) part[i] = _mm512_load_si512(table + 64 * i);
  }
  // `upper` says whose top bit is set. The first instruction leaves those states as they are for
  // the second, so that nothing has to be blended.
  HWY_INLINE __m512i look_up(__m512i states, __mmask64 upper, __mmask64 lower) const {
    const __m512i half = _mm512_mask2_permutex2var_epi8(part[0], states, lower, part[1]);
    return _mm512_mask2_permutex2var_epi8(part[2], half, upper, part[3]);
  }
  __m512i part[4];
};

// out[row] = table[states[row]] for 64 rows; all aligned.
inline void LookUp64(const uint8_t* table, const uint8_t* states, uint8_t* out) {
  const __m512i s = _mm512_load_si512(states);
  const __mmask64 upper = _mm512_movepi8_mask(s);
  _mm512_store_si512(out, ByteTable(table).look_up(s, upper, _knot_mask64(upper)));
}

inline void ReadStates(const StateReader& reader, const uint8_t* bytes, uint8_t* states) {
  _mm512_store_si512(states, reader.read(bytes));
}

// Sums of bytes as numbers of 16 bits: the sum of both bytes, and the upper ones.
struct ByteSums {
  __m512i all, odd;
  HWY_INLINE ByteSums() : all(_mm512_setzero_si512()), odd(all) {}
  HWY_INLINE void add(__m512i bytes) {
    all = _mm512_add_epi16(all, bytes);
    odd = _mm512_add_epi16(odd, _mm512_srli_epi16(bytes, 8));
  }
  HWY_INLINE __m512i even() const { return _mm512_sub_epi16(all, _mm512_slli_epi16(odd, 8)); }
};

// The sums of entries: low parts, high parts.
HWY_INLINE __m512i Combine(__m512i low, __m512i high, int64_t groups) {
  const auto bias = static_cast<int16_t>(groups * kTrellisHighBias);
  return _mm512_add_epi16(
      low, _mm512_slli_epi16(_mm512_sub_epi16(high, _mm512_set1_epi16(bias)), kTrellisLowBits));
}

// sums[tile][place of a row] = the sum of the entries of `groups` groups, of kTiles tiles.
template <int kTiles>
void ChunkSums(const StateReader& reader, int64_t group_bytes, const uint8_t* bytes,
               int64_t tile_bytes, int64_t groups, const uint8_t* tables, int16_t* sums) {
  ByteSums lows[kTiles], highs[kTiles];
  for (int64_t g = 0; g < groups;) {
    __m512i high_bytes[kTiles], low_bytes[kTiles];
    for (__m512i& sum : high_bytes) sum = _mm512_setzero_si512();
    for (const int64_t eight = std::min(g + kTrellisHighSum, groups); g < eight;) {
      for (__m512i& sum : low_bytes) sum = _mm512_setzero_si512();
      for (const int64_t four = std::min(g + kTrellisLowSum, eight); g < four; ++g) {
        const ByteTable low(tables), high(tables + kTrellisStates);
        for (int t = 0; t < kTiles; ++t) {
          const __m512i states = reader.read(bytes + t * tile_bytes);
          const __mmask64 on = _mm512_movepi8_mask(states), off = _knot_mask64(on);
          low_bytes[t] = _mm512_add_epi8(low_bytes[t], low.look_up(states, on, off));
          high_bytes[t] = _mm512_add_epi8(high_bytes[t], high.look_up(states, on, off));
        }
        bytes += group_bytes;
        tables += kTrellisTableBytes;
      }
      for (int t = 0; t < kTiles; ++t) lows[t].add(low_bytes[t]);
    }
    for (int t = 0; t < kTiles; ++t) highs[t].add(high_bytes[t]);
  }
  for (int t = 0; t < kTiles; ++t) {
    int16_t* to = sums + t * kTrellisTileRows;
    _mm512_store_si512(to, Combine(lows[t].even(), highs[t].even(), groups));
    _mm512_store_si512(to + 32, Combine(lows[t].odd, highs[t].odd, groups));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();
#endif

#endif

// Trellis states and lookups with shuffles of 16 bytes (pshufb, tbl): 16 or 32 rows in a vector. A
// table of 256 is 16 of 16, between which the upper four bits of the state choose one after the
// other.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_TRELLIS_PSHUFB_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_TRELLIS_PSHUFB_INL_H_
#undef BILLM_TRELLIS_PSHUFB_INL_H_
#else
#define BILLM_TRELLIS_PSHUFB_INL_H_
#endif

#include <algorithm>

#include "hwy/highway.h"
#include "kernels/cpu/trellis_gemv.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D8 = hn::CappedTag<uint8_t, 32>;
using V8 = hn::Vec<D8>;
using D8to16 = hn::RepartitionToWide<D8>;

constexpr int kStateBytes = hn::MaxLanes(D8());
constexpr int kTilesAtOnce = 1;
constexpr int kVectors = kTrellisTileRows / kStateBytes;  // of a tile

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
  explicit StateReader(int k) : place_(kStatePlaces.place[k]), factor_(kStatePlaces.factor[k]) {}
  HWY_INLINE V8 read(int k, const uint8_t* bytes) const {
    const D8 d8;
    const D8to16 d16;
#if HWY_TARGET <= HWY_AVX2
    const hn::Half<D8> half;
    const V8 all = hn::Combine(d8, hn::LoadU(half, bytes + 2 * k), hn::LoadU(half, bytes));
#else
    (void)k;
    const V8 all = hn::LoadU(d8, bytes);
#endif
    const auto pairs = [&](int odd) HWY_ATTR {
      const V8 two = hn::TableLookupBytes(all, hn::LoadDup128(d8, place_[odd]));
      return hn::Mul(hn::BitCast(d16, two), hn::LoadDup128(d16, factor_[odd]));
    };
    const auto even = hn::ShiftRight<8>(pairs(0));
    return hn::BitCast(d8, hn::Or(even, hn::And(pairs(1), hn::Set(d16, uint16_t{0xff00}))));
  }

 private:
  const uint8_t (*place_)[16];
  const uint16_t (*factor_)[8];
};

// `yes` where the top bit of the byte is set.
HWY_INLINE V8 Choose(V8 bytes, V8 yes, V8 no) {
  const hn::RebindToSigned<D8> di;
  const auto sign = hn::BitCast(di, bytes);
#if HWY_TARGET == HWY_SSSE3  // where IfNegativeThenElse takes all bits of a byte
  const auto mask = hn::Lt(sign, hn::Zero(di));
  return hn::BitCast(D8(), hn::IfThenElse(mask, hn::BitCast(di, yes), hn::BitCast(di, no)));
#else
  return hn::BitCast(D8(), hn::IfNegativeThenElse(sign, hn::BitCast(di, yes), hn::BitCast(di, no)));
#endif
}

// The vectors of states of a tile: the lower four bits, and each of the upper ones on top of its
// byte.
struct TileStates {
  V8 low[kVectors], bit[4][kVectors];

  HWY_INLINE void set(int v, V8 states) {
    const D8 d8;
    const D8to16 d16;
    const auto wide = hn::BitCast(d16, states);
    low[v] = hn::And(states, hn::Set(d8, 0x0f));
    bit[0][v] = hn::BitCast(d8, hn::ShiftLeft<3>(wide));
    bit[1][v] = hn::BitCast(d8, hn::ShiftLeft<2>(wide));
    bit[2][v] = hn::BitCast(d8, hn::Add(wide, wide));
    bit[3][v] = states;
  }
};

struct TileBytes {
  V8 of[kVectors];
};

// What the 2^kBits tables of 16 bytes from `table` on say.
template <int kBits>
HWY_INLINE TileBytes LookUp(const uint8_t* table, const TileStates& states) {
  TileBytes result;
  if constexpr (kBits == 0) {
    const V8 entries = hn::LoadDup128(D8(), table);
    for (int v = 0; v < kVectors; ++v) {
      result.of[v] = hn::TableLookupBytes(entries, states.low[v]);
    }
  } else {
    const TileBytes no = LookUp<kBits - 1>(table, states);
    const TileBytes yes = LookUp<kBits - 1>(table + (8 << kBits), states);
    for (int v = 0; v < kVectors; ++v) {
      result.of[v] = Choose(states.bit[kBits - 1][v], yes.of[v], no.of[v]);
    }
  }
  return result;
}

// out[row] = table[states[row]] for 64 rows; all aligned.
inline void LookUp64(const uint8_t* table, const uint8_t* states, uint8_t* out) {
  const D8 d8;
  TileStates all;
  for (int v = 0; v < kVectors; ++v) all.set(v, hn::Load(d8, states + v * kStateBytes));
  const TileBytes bytes = LookUp<4>(table, all);
  for (int v = 0; v < kVectors; ++v) hn::Store(bytes.of[v], d8, out + v * kStateBytes);
}

inline void ReadStates(const StateReader& reader, int k, const uint8_t* bytes, uint8_t* states) {
  for (int v = 0; v < kVectors; ++v) {
    hn::Store(reader.read(k, bytes + v * kStateBytes / 8 * k), D8(), states + v * kStateBytes);
  }
}

// Sums of bytes as numbers of 16 bits: the sum of both bytes, and the upper ones.
struct ByteSums {
  using V16 = hn::Vec<D8to16>;
  V16 all, odd;
  HWY_INLINE ByteSums() : all(hn::Zero(D8to16())), odd(all) {}
  HWY_INLINE void add(V8 bytes) {
    const auto wide = hn::BitCast(D8to16(), bytes);
    all = hn::Add(all, wide);
    odd = hn::Add(odd, hn::ShiftRight<8>(wide));
  }
  HWY_INLINE V16 even() const { return hn::Sub(all, hn::ShiftLeft<8>(odd)); }
};

// The sums of entries: low parts, high parts.
HWY_INLINE ByteSums::V16 Combine(ByteSums::V16 low, ByteSums::V16 high, int64_t groups) {
  const auto bias = hn::Set(D8to16(), static_cast<uint16_t>(groups * kTrellisHighBias));
  return hn::Add(low, hn::ShiftLeft<kTrellisLowBits>(hn::Sub(high, bias)));
}

// sums[tile][place of a row] = the sum of the entries of `groups` groups, of kTiles tiles.
template <int kTiles>
void ChunkSums(const StateReader& reader, int k, const uint8_t* bytes, int64_t tile_bytes,
               int64_t groups, const uint8_t* tables, int16_t* sums) {
  static_assert(kTiles == 1);
  (void)tile_bytes;
  const D8 d8;
  const D8to16 d16;
  ByteSums lows[kVectors], highs[kVectors];
  for (int64_t g = 0; g < groups;) {
    V8 high_bytes[kVectors], low_bytes[kVectors];
    for (V8& sum : high_bytes) sum = hn::Zero(d8);
    for (const int64_t eight = std::min(g + kTrellisHighSum, groups); g < eight;) {
      for (V8& sum : low_bytes) sum = hn::Zero(d8);
      for (const int64_t four = std::min(g + kTrellisLowSum, eight); g < four; ++g) {
        TileStates states;
        for (int v = 0; v < kVectors; ++v) {
          states.set(v, reader.read(k, bytes + v * kStateBytes / 8 * k));
        }
        const TileBytes low = LookUp<4>(tables, states);
        for (int v = 0; v < kVectors; ++v) low_bytes[v] = hn::Add(low_bytes[v], low.of[v]);
        const TileBytes high = LookUp<4>(tables + kTrellisStates, states);
        for (int v = 0; v < kVectors; ++v) high_bytes[v] = hn::Add(high_bytes[v], high.of[v]);
        bytes += TrellisTilesView::group_bytes(k);
        tables += kTrellisTableBytes;
      }
      for (int v = 0; v < kVectors; ++v) lows[v].add(low_bytes[v]);
    }
    for (int v = 0; v < kVectors; ++v) highs[v].add(high_bytes[v]);
  }
  for (int v = 0; v < kVectors; ++v) {
    uint16_t* to = reinterpret_cast<uint16_t*>(sums) + v * kStateBytes;
    hn::Store(Combine(lows[v].even(), highs[v].even(), groups), d16, to);
    hn::Store(Combine(lows[v].odd, highs[v].odd, groups), d16, to + kStateBytes / 2);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#endif

// Coding of all row tiles of a layer: on the threads of this process, or shared with others.
#pragma once

#include <cstdint>
#include <functional>

#include "billm/base/parallel.h"
#include "billm/quantize/context.h"
#include "billm/quantize/row_share.h"

namespace billm {

// Calls code(first row) for every tile of `tile_rows` rows of `out`, which it fills in; with
// context.share, for this process's tiles, and then gets the rest.
inline void code_tiles(const QuantizeContext& context, int64_t tile_rows,
                       const std::function<void(int64_t)>& code, RegionCodes* out) {
  const int64_t tiles = (out->shape.rows + tile_rows - 1) / tile_rows;
  const RowShare::Tiles own =
      context.share != nullptr ? context.share->own(tiles) : RowShare::Tiles{0, tiles};
  parallel_for(own.count, context.threads,
               [&](int64_t tile) { code((own.first + tile) * tile_rows); });
  if (context.share != nullptr) context.share->complete(tile_rows, out);
}

}  // namespace billm

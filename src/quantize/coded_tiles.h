// Coding of all row tiles of a layer: on the threads of this process, or shared with others.
#pragma once

#include <cstdint>
#include <functional>

#include "billm/base/parallel.h"
#include "billm/quantize/config.h"
#include "billm/quantize/row_share.h"

namespace billm {

// Calls code(first row) for every tile of `tile_rows` rows of `out`, which it fills in; with
// config.share, for this process's tiles, and then gets the rest.
inline void code_tiles(const MethodConfig& config, int64_t tile_rows,
                       const std::function<void(int64_t)>& code, RegionCodes* out) {
  const int64_t tiles = (out->shape.rows + tile_rows - 1) / tile_rows;
  const RowShare::Tiles own =
      config.share != nullptr ? config.share->own(tiles) : RowShare::Tiles{0, tiles};
  parallel_for(own.count, config.threads,
               [&](int64_t tile) { code((own.first + tile) * tile_rows); });
  if (config.share != nullptr) config.share->complete(tile_rows, out);
}

}  // namespace billm

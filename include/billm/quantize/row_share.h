// How several processes quantize one layer together. The rows of a weight are independent once its
// salient columns and scales of columns are chosen (which every process does for itself, from the
// same W and H): each codes a run of tiles of 64 rows (of trellises, of segments: up to 512 rows,
// one of which is never shared) and gets the others' rows.
#pragma once

#include <cstdint>

#include "billm/codes/region_codes.h"
#include "billm/codes/trellis.h"

namespace billm {

class RowShare {
 public:
  struct Tiles {
    int64_t first = 0, count = 0;
  };
  virtual ~RowShare() = default;
  // The tiles, of `tiles` in all, that this process codes.
  virtual Tiles own(int64_t tiles) const = 0;
  // Fills in the rows that the others coded (region, code, scales, offsets, steps), tiles of
  // `tile_rows` rows each. Called once per coding, by all processes.
  virtual void complete(int64_t tile_rows, RegionCodes* linear) const = 0;
  // The same of tiles that are segments (states, scales).
  virtual void complete(TrellisCodes* codes) const = 0;
};

}  // namespace billm

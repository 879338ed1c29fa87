// The order of a layer's columns in the kernel layout (kernels/plane_tiles.h).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/plane_tiles.h"
#include "planes.h"

namespace billm {

// The segments of a layer and where its columns are in run order.
struct RunOrder {
  std::vector<kernels::PlaneSegment> segments;
  std::vector<kernels::PlaneGroup> groups;
  std::vector<int32_t> source;  // [8 * octets]; -1: filled up
  std::vector<int32_t> place;   // [cols]: inverse of source
  int64_t tile_bytes = 0;
};

RunOrder make_run_order(const PlanesView& view, const kernels::TileOrder& order);

}  // namespace billm

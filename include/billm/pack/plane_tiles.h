// Makes kernels/plane_tiles.h's form of a packed layer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "billm/pack/packed_linear.h"
#include "kernels/plane_tiles.h"

namespace billm {

// Owns what a PlaneTilesView points to, in host memory.
class PlaneTiles {
 public:
  // Why a layer of this shape cannot be run as planes; empty if it can. What cannot: offsets per
  // region, and offsets of pruned layers.
  static std::string unsupported(const LinearShape& shape);

  // `packed` must have passed check_packed and be supported. The result does not depend on
  // `threads`.
  PlaneTiles(const PackedLinear& packed, const kernels::TileOrder& order, int threads);
  PlaneTiles(PlaneTiles&&) = default;
  PlaneTiles& operator=(PlaneTiles&&) = default;

  const kernels::PlaneTilesView& view() const { return view_; }
  int64_t bytes() const;  // read for one product W x

 private:
  kernels::PlaneTilesView view_;
  std::vector<kernels::PlaneSegment> segments_;
  std::vector<kernels::PlaneGroup> groups_;
  std::vector<int32_t> source_;
  std::vector<uint8_t> planes_;  // aligned: see plane_tiles.cpp
  std::vector<uint8_t> codes_;
  std::vector<float> levels_, constants_, column_scale_;
  std::vector<int32_t> chunk_first_;
  std::vector<uint32_t> scattered_start_;
  std::vector<uint8_t> scattered_column_, scattered_code_;
  std::vector<float> scattered_step_, scattered_shift_;
};

}  // namespace billm

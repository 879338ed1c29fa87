// Repacks a layer into the kernel layout (kernels/plane_tiles.h).
#pragma once

#include <hwy/aligned_allocator.h>

#include <cstdint>
#include <string>
#include <vector>

#include "billm/pack/packed_planes.h"
#include "kernels/plane_tiles.h"

namespace billm {

// Owns what a PlaneTilesView points to, in host memory.
class PlaneTiles {
 public:
  // Why a layer of this shape cannot be run as planes; empty if it can. What cannot: offsets per
  // region or of pruned layers, and integers scattered among salient columns.
  static std::string unsupported(const RegionFormat& shape);

  // `packed` must have passed check_packed and be supported. The result does not depend on
  // `threads`.
  PlaneTiles(const PackedPlanes& packed, const kernels::TileOrder& order, int threads);
  PlaneTiles(PlaneTiles&&) = default;
  PlaneTiles& operator=(PlaneTiles&&) = default;
  PlaneTiles copy() const;

  const kernels::PlaneTilesView& view() const { return view_; }
  int64_t bytes() const { return bytes_; }  // read for one product W x

 private:
  template <typename T>
  using Aligned = hwy::AlignedFreeUniquePtr<T[]>;

  PlaneTiles() = default;
  void point_view();  // to the vectors and arrays

  kernels::PlaneTilesView view_;
  std::vector<kernels::PlaneSegment> segments_;
  std::vector<kernels::PlaneGroup> groups_;
  std::vector<int32_t> source_;
  Aligned<uint8_t> planes_, codes_;
  Aligned<float> levels_, constants_;
  std::vector<float> column_scale_;
  std::vector<uint32_t> start_;
  std::vector<uint16_t> count_;
  std::vector<uint8_t> column_, code_;
  std::vector<float> step_, shift_;
  int64_t plane_count_ = 0, code_count_ = 0, level_count_ = 0, constant_count_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace billm

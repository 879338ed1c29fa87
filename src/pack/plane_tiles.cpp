// Repacks the planes of the file into the kernel layout: see include/billm/pack/plane_tiles.h.
#include "billm/pack/plane_tiles.h"

#include <algorithm>
#include <new>
#include <utility>

#include "billm/base/parallel.h"
#include "planes.h"
#include "row_planes.h"
#include "run_order.h"

namespace billm {

using kernels::LevelKind;
using kernels::PlaneGroup;
using kernels::PlaneSegment;

namespace {

// Kernels read whole vectors: so much may stand behind the last scattered integer.
constexpr size_t kVectorBytes = 64;

// Null for none.
template <typename T>
hwy::AlignedFreeUniquePtr<T[]> allocate(int64_t count) {
  if (count == 0) return {};
  auto memory = hwy::AllocateAligned<T>(static_cast<size_t>(count));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
template <typename T>
hwy::AlignedFreeUniquePtr<T[]> zeros(int64_t count) {
  auto memory = allocate<T>(count);
  std::fill_n(memory.get(), count, T{0});
  return memory;
}
template <typename T>
hwy::AlignedFreeUniquePtr<T[]> copy_of(const T* from, int64_t count) {
  auto memory = allocate<T>(count);
  std::copy_n(from, count, memory.get());
  return memory;
}

}  // namespace

std::string PlaneTiles::unsupported(const RegionFormat& shape) {
  if (shape.offset_kind == OffsetKind::kRegion) return "offsets per region";
  if (shape.offset_kind != OffsetKind::kNone && shape.nm.active())
    return "offsets with an N:M mask";
  if (shape.scattered && shape.salient_classes > 0) return "integers beside salient columns";
  return "";
}

PlaneTiles::PlaneTiles(const PackedPlanes& packed, const kernels::TileOrder& order, int threads) {
  const PlanesView view(packed);
  const RegionFormat& shape = view.shape;
  RunOrder run = make_run_order(view, order);
  view_.rows = shape.rows;
  view_.cols = shape.cols;
  view_.order = order;
  view_.octets = static_cast<int32_t>(run.source.size() / 8);
  view_.tile_bytes = run.tile_bytes;
  view_.pruned = shape.nm.active();
  view_.level_kind = shape.all_integers()                       ? LevelKind::kInteger
                     : shape.scale_format == ScaleFormat::kLog8 ? LevelKind::kLog8
                                                                : LevelKind::kFloat;
  view_.level_rows =
      static_cast<int32_t>(shape.groups() * (shape.all_integers() ? 1 : shape.regions()));
  view_.base = view_.level_kind == LevelKind::kLog8 ? view.base : 1.0f;

  const int tile_rows = order.tile_rows;
  const int64_t tiles = view_.tiles(), segments = static_cast<int64_t>(run.segments.size());
  const bool constants = shape.all_integers() || shape.offset_kind != OffsetKind::kNone;
  plane_count_ = tiles * view_.tile_bytes;
  (view_.level_kind == LevelKind::kLog8 ? code_count_ : level_count_) =
      tiles * view_.level_rows * tile_rows;
  constant_count_ = constants ? tiles * segments * tile_rows : 0;
  planes_ = zeros<uint8_t>(plane_count_);
  codes_ = zeros<uint8_t>(code_count_);
  levels_ = zeros<float>(level_count_);
  constants_ = zeros<float>(constant_count_);
  bytes_ = plane_count_ + code_count_ + 4 * (level_count_ + constant_count_);
  if (shape.scattered) {
    start_.assign(view.integer_start.begin(), view.integer_start.end());
    const auto entries = static_cast<size_t>(view.integer_start.back());
    const auto counts = static_cast<size_t>(shape.rows * segments);
    column_.resize(entries + kVectorBytes);
    code_.resize(entries + kVectorBytes);
    count_.resize(counts);
    shift_.resize(counts);
    step_.resize(static_cast<size_t>(shape.rows));
    bytes_ += static_cast<int64_t>(2 * entries + 6 * counts) + 8 * shape.rows;
  }
  std::vector<int32_t> segment_of;  // [cols]
  if (shape.scattered || constants) {
    segment_of.resize(static_cast<size_t>(shape.cols));
    for (int64_t s = 0; s < segments; ++s) {
      const PlaneSegment& segment = run.segments[s];
      for (int32_t i = 8 * segment.first_octet; i < 8 * (segment.first_octet + segment.octets);
           ++i) {
        if (run.source[i] >= 0) segment_of[run.source[i]] = static_cast<int32_t>(s);
      }
    }
  }

  parallel_for(tiles, threads, [&](int64_t tile) {
    RowPlanes row_planes(view, run);
    const int64_t rows = std::min<int64_t>(tile_rows, shape.rows - tile * tile_rows);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = tile * tile_rows + i;
      const int lane = static_cast<int>(i);
      size_t entry = shape.scattered ? start_[row] : 0;
      row_planes.fill(row, [&](int64_t col, int code) {
        const int32_t segment = segment_of[col];
        column_[entry] =
            static_cast<uint8_t>(run.place[col] - 8 * run.segments[segment].first_octet);
        code_[entry++] = static_cast<uint8_t>(code);
        ++count_[row * segments + segment];
      });
      for (const PlaneGroup& group : run.groups) {
        row_planes.store(group, order, lane, planes_.get() + tile * view_.tile_bytes);
      }
      for (int64_t s = 0; constants && s < segments; ++s) {
        const int64_t group =
            run.segments[s].level_row / (shape.all_integers() ? 1 : shape.regions());
        float& constant = constants_[(tile * segments + s) * tile_rows + lane];
        if (shape.all_integers()) {
          const int64_t from = group * shape.rows + row;
          const auto middle = static_cast<float>((1 << shape.integer_bits) - 1) * 0.5f;
          constant = view.step(from) * (middle - static_cast<float>(view.zero(from)));
        } else {
          constant = view.offset(group, 0, row);
        }
      }
      if (!shape.scattered) continue;
      step_[row] = view.step(row);
      for (int64_t s = 0; s < segments; ++s) {
        const int64_t group = run.segments[s].level_row / shape.regions();
        shift_[row * segments + s] = view.scale(run.segments[s].level_row * shape.rows + row) -
                                     view.offset(group, 0, row) -
                                     static_cast<float>(view.zero(row)) * step_[row];
      }
    }
    // Scales lie row after row in the file, too.
    for (int32_t level = 0; level < view_.level_rows; ++level) {
      const int64_t at = (tile * view_.level_rows + level) * tile_rows;
      const int64_t from = level * shape.rows + tile * tile_rows;
      for (int64_t i = 0; i < rows; ++i) {
        if (view_.level_kind == LevelKind::kLog8) {
          codes_[at + i] = static_cast<uint8_t>(view.scales[from + i]);
        } else {
          levels_[at + i] =
              view_.level_kind == LevelKind::kInteger ? view.step(from + i) : view.scale(from + i);
        }
      }
    }
  });

  segments_ = std::move(run.segments);
  groups_ = std::move(run.groups);
  source_ = std::move(run.source);
  for (int64_t col = 0; shape.column_scales && col < shape.cols; ++col) {
    column_scale_.push_back(view.column_scale(col));
  }
  point_view();
}

void PlaneTiles::point_view() {
  view_.segments = segments_.data();
  view_.groups = groups_.data();
  view_.segment_count = static_cast<int32_t>(segments_.size());
  view_.group_count = static_cast<int32_t>(groups_.size());
  view_.planes = planes_.get();
  view_.codes = codes_.get();
  view_.levels = levels_.get();
  view_.constants = constants_.get();
  view_.source = source_.data();
  view_.column_scale = column_scale_.empty() ? nullptr : column_scale_.data();
  if (!start_.empty()) {
    view_.scattered = {start_.data(), count_.data(), column_.data(),
                       code_.data(),  step_.data(),  shift_.data()};
  }
}

PlaneTiles PlaneTiles::copy() const {
  PlaneTiles other;
  other.view_ = view_;
  other.segments_ = segments_;
  other.groups_ = groups_;
  other.source_ = source_;
  other.column_scale_ = column_scale_;
  other.start_ = start_;
  other.count_ = count_;
  other.column_ = column_;
  other.code_ = code_;
  other.step_ = step_;
  other.shift_ = shift_;
  other.plane_count_ = plane_count_;
  other.code_count_ = code_count_;
  other.level_count_ = level_count_;
  other.constant_count_ = constant_count_;
  other.bytes_ = bytes_;
  other.planes_ = copy_of(planes_.get(), plane_count_);
  other.codes_ = copy_of(codes_.get(), code_count_);
  other.levels_ = copy_of(levels_.get(), level_count_);
  other.constants_ = copy_of(constants_.get(), constant_count_);
  other.point_view();
  return other;
}

}  // namespace billm

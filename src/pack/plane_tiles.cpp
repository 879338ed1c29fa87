// From the planes of the file to the form that is run: see include/billm/pack/plane_tiles.h.
#include "billm/pack/plane_tiles.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <utility>

#include "billm/base/parallel.h"
#include "planes.h"

namespace billm {

using kernels::kSegmentColumns;
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

// The segments of a layer and where its columns are in run order.
struct RunOrder {
  std::vector<PlaneSegment> segments;
  std::vector<PlaneGroup> groups;
  std::vector<int32_t> source;     // [8 * octets]
  std::vector<int32_t> place;      // [cols]: inverse of source
  std::vector<uint8_t> planes_of;  // [cols]: planes of the column's segment
  int64_t tile_bytes = 0;
};

int planes_of_set(const RegionFormat& shape, int set) {
  if (shape.all_integers()) return shape.integer_bits;
  return (set == 0 ? shape.classes : shape.salient_classes) + (shape.nm.active() ? 1 : 0);
}

class RunOrderMaker {
 public:
  RunOrderMaker(const PlanesView& view, const kernels::TileOrder& order)
      : view_(view), shape_(view.shape), order_(order) {}

  RunOrder make() {
    for (const int set : {0, 1}) {
      const int planes = planes_of_set(shape_, set);
      if (out_.groups.empty() || out_.groups.back().planes != planes) begin_group(planes);
      for (int64_t block = 0; block < shape_.blocks(); ++block) add_block(block, set);
    }
    end_group();
    out_.place.assign(static_cast<size_t>(shape_.cols), -1);
    for (size_t i = 0; i < out_.source.size(); ++i) {
      if (out_.source[i] >= 0) out_.place[out_.source[i]] = static_cast<int32_t>(i);
    }
    return std::move(out_);
  }

 private:
  int32_t octets() const { return static_cast<int32_t>(out_.source.size() / 8); }
  bool is_salient(int64_t col) const {
    return !view_.is_salient_column.empty() && view_.is_salient_column[col] != 0;
  }

  void begin_group(int planes) {
    end_group();
    PlaneGroup group;
    group.planes = planes;
    group.stored = order_.folded && shape_.nm.active() && planes == kernels::kFoldedPlanes
                       ? kernels::kFoldedStored
                       : planes;
    group.first_segment = static_cast<int32_t>(out_.segments.size());
    group.first_octet = octets();
    group.offset = out_.tile_bytes;
    out_.groups.push_back(group);
  }

  // Fills the group up to whole lines; drops it if it has no columns.
  void end_group() {
    if (out_.groups.empty()) return;
    PlaneGroup& group = out_.groups.back();
    group.segments = static_cast<int32_t>(out_.segments.size()) - group.first_segment;
    if (group.segments == 0) {
      out_.groups.pop_back();
      return;
    }
    while ((octets() - group.first_octet) % order_.interleave != 0) {
      out_.source.insert(out_.source.end(), 8, -1);
    }
    group.octets = octets() - group.first_octet;
    out_.tile_bytes =
        group.offset + group.octets / order_.interleave * group.stored * order_.line_bytes();
  }

  void add_block(int64_t block, int set) {
    std::vector<int32_t> columns;
    const int64_t end = std::min<int64_t>(shape_.cols, (block + 1) * shape_.block_size);
    for (int64_t col = block * shape_.block_size; col < end; ++col) {
      if (is_salient(col) == (set == 1)) columns.push_back(static_cast<int32_t>(col));
    }
    for (size_t first = 0; first < columns.size(); first += kSegmentColumns) {
      const size_t last = std::min(columns.size(), first + kSegmentColumns);
      PlaneSegment segment;
      segment.first_octet = octets();
      segment.octets = static_cast<int32_t>((last - first + 7) / 8);
      if (shape_.all_integers()) {
        segment.level_row = static_cast<int32_t>(block);
        segment.levels = 1;
      } else {
        segment.level_row =
            static_cast<int32_t>(block * shape_.regions() + (set == 1 ? shape_.classes : 0));
        segment.levels = set == 0 ? shape_.classes : shape_.salient_classes;
      }
      out_.segments.push_back(segment);
      out_.source.insert(out_.source.end(), columns.begin() + static_cast<int64_t>(first),
                         columns.begin() + static_cast<int64_t>(last));
      out_.source.resize(static_cast<size_t>(segment.first_octet + segment.octets) * 8, -1);
    }
  }

  const PlanesView& view_;
  const RegionFormat& shape_;
  const kernels::TileOrder order_;
  RunOrder out_;
};

// The bits of one row's planes in run order.
class RowPlanes {
 public:
  RowPlanes(const PlanesView& view, const RunOrder& order)
      : view_(view), order_(order), words_(order.source.size()) {}

  // `integer` is called with (column, code) of the row's scattered integers, in order.
  template <typename Integer>
  void fill(int64_t row, Integer integer) {
    std::fill(words_.begin(), words_.end(), uint8_t{0});
    const RegionFormat& shape = view_.shape;
    const int32_t* place = order_.place.data();
    const auto set = [&](int64_t col, uint32_t word) {
      words_[static_cast<size_t>(place[col])] = static_cast<uint8_t>(word);
    };
    if (shape.all_integers()) {
      for (int64_t col = 0; col < shape.cols; ++col) {
        set(col, static_cast<uint32_t>(view_.integer(row * shape.cols + col)));
      }
      return;
    }
    // The bits of class index t (0 the smallest level, pruned or not) and sign s: plane 0 is s,
    // plane j is s if t >= j, else not s.
    const auto word = [](int t, bool sign) {
      const uint32_t above = (uint32_t{1} << (t + 1)) - 1;  // bits 0..t
      return static_cast<uint8_t>(sign ? above : ~above);
    };
    if (!shape.scattered) {
      const int lowest = shape.nm.active() ? 1 : 0;
      std::array<uint8_t, 16> words{};  // [kept][t][sign]
      for (int t = 0; t < 4; ++t) {
        words[2 * t] = words[2 * t + 1] = 1;  // pruned: s = +1, class below all others
        for (const int sign : {0, 1}) words[8 + 2 * t + sign] = word(lowest + t, sign != 0);
      }
      view_.visit_row(row, &buffers_, [&](int64_t col, int kept, int t, bool sign) {
        set(col, words[8 * kept + 2 * t + (sign ? 1 : 0)]);
      });
      return;
    }
    PlanesView::Cursor cursor = view_.start_row(row, &buffers_.kept);
    view_.visit(
        0, shape.cols, buffers_.kept, &cursor,
        [&](int64_t col, int r, bool sign) { set(col, word(r, sign)); },
        [&](int64_t col, int code) {
          set(col, word(0, false));  // minus the smallest level: ScatteredView::shift takes it off
          integer(col, code);
        });
  }

  // Writes the planes of a group, as row `row` of a tile.
  void store(const PlaneGroup& group, const kernels::TileOrder& order, int row,
             uint8_t* tile) const {
    const int64_t line_bytes = order.line_bytes();
    uint8_t* to = tile + kernels::plane_byte(order, group, 0, group.first_octet, row);
    const uint8_t* words = words_.data() + 8 * int64_t{group.first_octet};
    for (int32_t octet = 0; octet < group.octets; octet += order.interleave) {
      for (int i = 0; i < order.interleave; ++i, words += 8) {
        uint64_t eight;
        std::memcpy(&eight, words, 8);
        if (group.stored == group.planes) {
          for (int p = 0; p < group.stored; ++p) to[p * line_bytes + i] = bits(eight, p);
        } else {
          store_folded(eight, line_bytes, to + i);
        }
      }
      to += group.stored * line_bytes;
    }
  }

 private:
  // Bit `plane` of each of eight words: bit i of the result is of word i.
  static uint8_t bits(uint64_t words, int plane) {
    constexpr uint64_t kLowest = 0x0101010101010101u, kGather = 0x0102040810204080u;
    return static_cast<uint8_t>(((words >> plane) & kLowest) * kGather >> 56);
  }
  // The inverse of kernels::unfold().
  static void store_folded(uint64_t words, int64_t line_bytes, uint8_t* to) {
    const int sign = bits(words, 0);
    const auto level_at_least = [&](int j) { return ~(sign ^ bits(words, j)); };
    const int high = level_at_least(2);
    to[0] = static_cast<uint8_t>(sign);
    to[line_bytes] = static_cast<uint8_t>((level_at_least(1) & ~high) | level_at_least(3));
    to[2 * line_bytes] = static_cast<uint8_t>(high);
  }

  const PlanesView& view_;
  const RunOrder& order_;
  PlanesView::RowBuffers buffers_;
  std::vector<uint8_t> words_;  // by place: bit p is the weight's bit of plane p
};

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
  RunOrder run = RunOrderMaker(view, order).make();
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
      static_cast<int32_t>(shape.blocks() * (shape.all_integers() ? 1 : shape.regions()));
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
        const int64_t block =
            run.segments[s].level_row / (shape.all_integers() ? 1 : shape.regions());
        float& constant = constants_[(tile * segments + s) * tile_rows + lane];
        if (shape.all_integers()) {
          const int64_t from = block * shape.rows + row;
          const auto middle = static_cast<float>((1 << shape.integer_bits) - 1) * 0.5f;
          constant = view.step(from) * (middle - static_cast<float>(view.zero(from)));
        } else {
          constant = view.offset(block, 0, row);
        }
      }
      if (!shape.scattered) continue;
      step_[row] = view.step(row);
      for (int64_t s = 0; s < segments; ++s) {
        const int64_t block = run.segments[s].level_row / shape.regions();
        shift_[row * segments + s] = view.scale(run.segments[s].level_row * shape.rows + row) -
                                     view.offset(block, 0, row) -
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

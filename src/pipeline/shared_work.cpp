// See shared_work.h.
#include "shared_work.h"

#include <algorithm>
#include <utility>

namespace billm {
namespace {

constexpr int64_t kBandFloats = int64_t{4} << 20;  // of one message

// Calls body(bytes) for bands of rows of the upper triangle, copied into a buffer; what body leaves
// there is copied back if `writes`.
void for_bands(CalibrationStats& stats, bool writes,
               const std::function<void(std::span<std::byte>)>& body) {
  const int64_t width = stats.width;
  std::vector<float> band;
  for (int64_t first = 0; first < width;) {
    int64_t last = first, size = 0;
    while (last < width && (size == 0 || size + width - last <= kBandFloats)) {
      size += width - last++;
    }
    band.resize(static_cast<size_t>(size));
    const auto copy = [&](bool back) {
      float* at = band.data();
      for (int64_t row = first; row < last; ++row) {
        float* matrix = stats.xtx.data() + row * width + row;
        if (back) {
          std::copy_n(at, width - row, matrix);
        } else {
          std::copy_n(matrix, width - row, at);
        }
        at += width - row;
      }
    };
    if (!writes) copy(false);
    body(std::as_writable_bytes(std::span(band)));
    if (writes) copy(true);
    first = last;
  }
}

RowShare::Tiles tiles_of(int64_t tiles, int rank, int size) {
  const int64_t first = tiles * rank / size;
  return {first, tiles * (rank + 1) / size - first};
}

// The entries of rows [first, first + count) of a vector whose fastest index is the row.
template <typename T>
void broadcast_rows(ProcessGroup& processes, int from, int64_t rows, int64_t first, int64_t count,
                    std::vector<T>& values) {
  const int64_t strips = static_cast<int64_t>(values.size()) / rows;
  std::vector<T> packed(static_cast<size_t>(strips * count));
  const bool mine = processes.rank() == from;
  for (int64_t s = 0; mine && s < strips; ++s) {
    std::copy_n(values.begin() + s * rows + first, count, packed.begin() + s * count);
  }
  processes.broadcast(from, std::as_writable_bytes(std::span(packed)));
  for (int64_t s = 0; !mine && s < strips; ++s) {
    std::copy_n(packed.begin() + s * count, count, values.begin() + s * rows + first);
  }
}

}  // namespace

OwnSequences own_sequences(int64_t sequences, const ProcessGroup& group) {
  OwnSequences own;
  for (int64_t part = group.rank(); part < kSumParts; part += group.size()) {
    const SumPart range = sum_part(sequences, part);
    own.parts.push_back(range.count);
    for (int64_t i = 0; i < range.count; ++i) own.ids.push_back(range.first + i);
  }
  return own;
}

GroupSums::GroupSums(ProcessGroup& processes, std::vector<Group> groups, int64_t sequences,
                     int threads)
    : processes_(processes), groups_(std::move(groups)), sequences_(sequences), threads_(threads) {}

StatsByGroup GroupSums::empty() const {
  const auto zeros = [](int64_t rows, int64_t cols) {
    return std::vector<float>(static_cast<size_t>(rows * cols), 0.0f);
  };
  StatsByGroup stats;
  for (const Group& group : groups_) {
    stats[group.name] = {group.width, 0, zeros(group.width, group.width),
                         zeros(group.cross_width, group.width),
                         zeros(group.stream_width, group.width)};
  }
  return stats;
}

void GroupSums::for_pieces(StatsByGroup& stats, bool writes,
                           const std::function<void(std::span<std::byte>)>& body) const {
  for (const Group& group : groups_) {
    CalibrationStats& sums = stats.at(group.name);
    body(std::as_writable_bytes(std::span(&sums.tokens, 1)));
    for_bands(sums, writes, body);
    for (std::vector<float>* matrix : {&sums.cross, &sums.drift}) {
      for (size_t first = 0; first < matrix->size(); first += kBandFloats) {
        const size_t count = std::min<size_t>(kBandFloats, matrix->size() - first);
        body(std::as_writable_bytes(std::span(*matrix).subspan(first, count)));
      }
    }
  }
}

void GroupSums::add(StatsByGroup part) {
  const int64_t first_part = round_++ * processes_.size();
  if (!processes_.first()) {
    if (part.empty()) return;
    for_pieces(part, false, [&](std::span<std::byte> bytes) { processes_.send(0, bytes); });
    return;
  }
  add_stats(std::move(part), threads_, &total_);
  for (int rank = 1; rank < processes_.size(); ++rank) {
    const int64_t other = first_part + rank;
    if (other >= kSumParts || sum_part(sequences_, other).count == 0) continue;
    StatsByGroup theirs = empty();
    for_pieces(theirs, true, [&](std::span<std::byte> bytes) { processes_.receive(rank, bytes); });
    add_stats(std::move(theirs), threads_, &total_);
  }
}

StatsByGroup GroupSums::finish() {
  if (!processes_.first()) total_ = empty();
  for_pieces(total_, !processes_.first(),
             [&](std::span<std::byte> bytes) { processes_.broadcast(0, bytes); });
  round_ = 0;
  return std::move(total_);
}

RowShare::Tiles GroupRows::own(int64_t tiles) const {
  return tiles_of(tiles, processes_.rank(), processes_.size());
}

void GroupRows::complete(int64_t tile_rows, RegionCodes* linear) const {
  const int64_t rows = linear->shape.rows, cols = linear->shape.cols;
  const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
  for (int rank = 0; rank < processes_.size(); ++rank) {
    const Tiles theirs = tiles_of(tiles, rank, processes_.size());
    const int64_t first = theirs.first * tile_rows;
    const int64_t count = std::min(rows, (theirs.first + theirs.count) * tile_rows) - first;
    if (count <= 0) continue;
    for (std::vector<uint8_t>* codes : {&linear->region, &linear->code}) {
      processes_.broadcast(
          rank, std::as_writable_bytes(std::span(*codes).subspan(
                    static_cast<size_t>(first * cols), static_cast<size_t>(count * cols))));
    }
    for (std::vector<float>* values : {&linear->scale, &linear->offset, &linear->step}) {
      broadcast_rows(processes_, rank, rows, first, count, *values);
    }
    broadcast_rows(processes_, rank, rows, first, count, linear->zero);
  }
}

void GroupRows::complete(TrellisCodes* codes) const {
  const int64_t rows = codes->format.rows, segment = codes->format.segment_rows();
  for (int rank = 0; rank < processes_.size(); ++rank) {
    const Tiles theirs = tiles_of(codes->format.segments(), rank, processes_.size());
    const int64_t first = theirs.first * segment;
    const int64_t count = std::min(rows, (theirs.first + theirs.count) * segment) - first;
    if (count <= 0) continue;
    for (std::vector<uint8_t>& states : codes->states) {
      broadcast_rows(processes_, rank, rows, first, count, states);
    }
    broadcast_rows(processes_, rank, rows, first, count, codes->scale);
  }
}

}  // namespace billm

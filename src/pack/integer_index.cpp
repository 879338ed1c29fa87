// See integer_index.h.
#include "integer_index.h"

#include <array>
#include <mutex>

#include "billm/base/parallel.h"
#include "planes.h"

namespace billm {
namespace {

constexpr int64_t kRows = 64;  // that a thread takes at a time

// Calls gap(columns since the last integer of the row) for every integer weight of a row.
template <typename Gap>
void for_gaps(const RegionCodes& linear, int64_t row, Gap gap) {
  const RegionFormat& shape = linear.shape;
  int64_t next = 0;
  for (int64_t col = 0; col < shape.cols; ++col) {
    if (linear.region[row * shape.cols + col] != shape.integer_region()) continue;
    gap(col - next);
    next = col + 1;
  }
}

// Integers of each row, and entries of all rows for each width of a gap.
struct Counts {
  std::vector<int64_t> integers;
  std::array<int64_t, kMaxDelta + 1> entries{};
};

Counts count(const RegionCodes& linear, int threads) {
  Counts counts;
  counts.integers.assign(static_cast<size_t>(linear.shape.rows), 0);
  std::mutex mutex;
  parallel_parts(linear.shape.rows, kRows, threads, [&](int64_t first, int64_t end) {
    std::array<int64_t, kMaxDelta + 1> entries{};
    for (int64_t row = first; row < end; ++row) {
      for_gaps(linear, row, [&](int64_t gap) {
        ++counts.integers[row];
        for (int d = kMinDelta; d <= kMaxDelta; ++d) entries[d] += 1 + gap / ((1 << d) - 1);
      });
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (int d = kMinDelta; d <= kMaxDelta; ++d) counts.entries[d] += entries[d];
  });
  return counts;
}

std::vector<std::byte> bitmap(const RegionCodes& linear, int threads) {
  const RegionFormat& shape = linear.shape;
  std::vector<std::byte> bytes(static_cast<size_t>((shape.rows * shape.cols + 7) / 8));
  parallel_parts(shape.rows, kRows, threads, [&](int64_t first, int64_t end) {
    std::vector<uint8_t> bits(static_cast<size_t>(shape.cols));
    for (int64_t row = first; row < end; ++row) {
      const uint8_t* region = linear.region.data() + row * shape.cols;
      for (int64_t col = 0; col < shape.cols; ++col) {
        bits[col] = region[col] == shape.integer_region();
      }
      put_fields(bytes.data(), row * shape.cols, bits, 1);
    }
  });
  return bytes;
}

// Fills entries and bytes of an index of gaps.
void add_gaps(const RegionCodes& linear, int threads, IntegerIndex* index) {
  const RegionFormat& shape = linear.shape;
  const int64_t skip = (1 << index->bits) - 1;
  index->entries.assign(static_cast<size_t>(shape.rows), 0);
  const auto for_rows = [&](const std::function<void(int64_t row)>& body) {
    parallel_parts(shape.rows, kRows, threads, [&](int64_t first, int64_t end) {
      for (int64_t row = first; row < end; ++row) body(row);
    });
  };
  for_rows([&](int64_t row) {
    for_gaps(linear, row, [&](int64_t gap) { index->entries[row] += 1 + gap / skip; });
  });
  std::vector<int64_t> start(static_cast<size_t>(shape.rows + 1), 0);
  for (int64_t row = 0; row < shape.rows; ++row) start[row + 1] = start[row] + index->entries[row];
  index->bytes.assign(static_cast<size_t>((start.back() * index->bits + 7) / 8), std::byte{0});
  for_rows([&](int64_t row) {
    std::vector<uint8_t> gaps;
    for_gaps(linear, row, [&](int64_t gap) {
      for (; gap >= skip; gap -= skip) gaps.push_back(static_cast<uint8_t>(skip));
      gaps.push_back(static_cast<uint8_t>(gap));
    });
    put_fields(index->bytes.data(), start[row] * index->bits, gaps, index->bits);
  });
}

}  // namespace

IntegerIndex make_integer_index(const RegionCodes& linear, int threads) {
  const RegionFormat& shape = linear.shape;
  Counts counts = count(linear, threads);
  IntegerIndex index;
  index.integers = std::move(counts.integers);
  const int64_t count_bytes = shape.rows * (short_counts(shape) ? 2 : 4);
  int64_t smallest = (shape.rows * shape.cols + 7) / 8;
  for (int d = kMinDelta; d <= kMaxDelta; ++d) {
    const int64_t bytes = (counts.entries[d] * d + 7) / 8 + count_bytes;
    if (bytes < smallest) {
      smallest = bytes;
      index.bits = d;
    }
  }
  if (index.bits == 0) {
    index.bytes = bitmap(linear, threads);
  } else {
    add_gaps(linear, threads, &index);
  }
  return index;
}

}  // namespace billm

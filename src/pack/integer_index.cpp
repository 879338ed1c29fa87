// See integer_index.h.
#include "integer_index.h"

#include "planes.h"

namespace billm {
namespace {

// Calls gap(row, columns since the last integer of the row) for every integer weight.
template <typename Gap>
void for_gaps(const QuantizedLinear& linear, Gap gap) {
  const LinearShape& shape = linear.shape;
  for (int64_t row = 0; row < shape.rows; ++row) {
    int64_t next = 0;
    for (int64_t col = 0; col < shape.cols; ++col) {
      if (linear.region[row * shape.cols + col] != shape.integer_region()) continue;
      gap(row, col - next);
      next = col + 1;
    }
  }
}

}  // namespace

IntegerIndex make_integer_index(const QuantizedLinear& linear) {
  const LinearShape& shape = linear.shape;
  const auto rows = static_cast<size_t>(shape.rows);
  IntegerIndex index;
  index.integers.assign(rows, 0);
  int64_t entries[kMaxDelta + 1] = {};
  for_gaps(linear, [&](int64_t row, int64_t gap) {
    ++index.integers[row];
    for (int d = kMinDelta; d <= kMaxDelta; ++d) entries[d] += 1 + gap / ((1 << d) - 1);
  });
  const int64_t count_bytes = shape.rows * (short_counts(shape) ? 2 : 4);
  int64_t smallest = (shape.rows * shape.cols + 7) / 8;
  for (int d = kMinDelta; d <= kMaxDelta; ++d) {
    const int64_t bytes = (entries[d] * d + 7) / 8 + count_bytes;
    if (bytes < smallest) {
      smallest = bytes;
      index.bits = d;
    }
  }
  BitWriter writer;
  if (index.bits == 0) {
    for (const uint8_t region : linear.region) writer.put(region == shape.integer_region(), 1);
  } else {
    index.entries.assign(rows, 0);
    const int64_t skip = (1 << index.bits) - 1;
    for_gaps(linear, [&](int64_t row, int64_t gap) {
      index.entries[row] += 1 + gap / skip;
      for (; gap >= skip; gap -= skip) writer.put(static_cast<uint64_t>(skip), index.bits);
      writer.put(static_cast<uint64_t>(gap), index.bits);
    });
  }
  index.bytes = writer.take();
  return index;
}

}  // namespace billm

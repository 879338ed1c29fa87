// See include/billm/quantize/rotated.h.
#include "billm/quantize/rotated.h"

#include <algorithm>

#include "billm/base/parallel.h"

namespace billm {
namespace {

// Columns that are rotated together: the floats of a cache line.
constexpr int64_t kColumns = 16;

}  // namespace

uint32_t rotation_seed(uint64_t seed, int64_t block, const std::string& name) {
  uint64_t z = 0xcbf29ce484222325u;
  for (const char byte : std::to_string(seed) + "/" + std::to_string(block) + "/" + name) {
    z = (z ^ static_cast<uint8_t>(byte)) * 0x100000001b3u;
  }
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<uint32_t>((z ^ (z >> 31)) >> 33);
}

LayerCodes rotated_codes(LayerCodes codes, const LayerRotation& rotation) {
  if (rotation.out) {
    Rotation back = *rotation.out;
    back.transposed = !back.transposed;
    codes.factors.insert(codes.factors.begin(), back);
  }
  if (rotation.in) codes.factors.emplace_back(*rotation.in);
  return codes;
}

void rotate_rows(const Rotation& rotation, float* matrix, int64_t rows, int64_t cols, int threads) {
  const RotationTables tables = make_rotation_tables(rotation);
  parallel_parts(rows, 8, threads, [&](int64_t first, int64_t end) {
    std::vector<double> vector(static_cast<size_t>(cols));
    for (int64_t row = first; row < end; ++row) {
      float* values = matrix + row * cols;
      std::copy_n(values, cols, vector.begin());
      rotate(tables, vector.data(), 1, cols);
      for (int64_t col = 0; col < cols; ++col) {
        values[col] = static_cast<float>(vector[static_cast<size_t>(col)]);
      }
    }
  });
}

void rotate_columns(const Rotation& rotation, float* matrix, int64_t rows, int64_t cols,
                    int threads) {
  const RotationTables tables = make_rotation_tables(rotation);
  parallel_parts(cols, kColumns, threads, [&](int64_t first, int64_t end) {
    std::vector<double> vectors(static_cast<size_t>(rows * kColumns));
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = first; col < end; ++col) {
        vectors[static_cast<size_t>((col - first) * rows + row)] = matrix[row * cols + col];
      }
    }
    rotate(tables, vectors.data(), end - first, rows);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = first; col < end; ++col) {
        matrix[row * cols + col] =
            static_cast<float>(vectors[static_cast<size_t>((col - first) * rows + row)]);
      }
    }
  });
}

void rotate_stats(const Rotation& in, int threads, CalibrationStats* stats) {
  const int64_t n = stats->width;
  float* xtx = stats->xtx.data();
  rotate_rows(in, xtx, n, n, threads);
  rotate_columns(in, xtx, n, n, threads);
  parallel_parts(n, 64, threads, [&](int64_t first, int64_t end) {  // the roundings differ
    for (int64_t row = first; row < end; ++row) {
      for (int64_t col = 0; col < row; ++col) xtx[row * n + col] = xtx[col * n + row];
      // Of inputs that depend on each other, a sum of squares may come out a little below 0.
      if (xtx[row * n + row] < 0) xtx[row * n + row] = 0;
    }
  });
}

std::vector<float> rotate_weight(const WeightView& weight, const std::vector<uint8_t>& dead,
                                 const LayerRotation& rotation, int threads) {
  const int64_t rows = weight.rows, cols = weight.cols;
  std::vector<float> rotated(weight.data, weight.data + rows * cols);
  if (rotation.in) {
    for (int64_t col = 0; col < cols; ++col) {
      if (dead[static_cast<size_t>(col)] == 0) continue;
      for (int64_t row = 0; row < rows; ++row) rotated[static_cast<size_t>(row * cols + col)] = 0;
    }
    rotate_rows(*rotation.in, rotated.data(), rows, cols, threads);
  }
  if (rotation.out) rotate_columns(*rotation.out, rotated.data(), rows, cols, threads);
  return rotated;
}

}  // namespace billm

// The ADMM: see binary_factors.h. docs/decisions/0017-binary-factors.md has what was tried.
#include "binary_factors.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "kernels/cpu/dense.h"

namespace billm {
namespace {

using Floats = std::vector<float>;
using kernels::Transposed;

constexpr int kSteps = 150;            // of the ADMM; 100 leave 4 % more error, 60 leave 11 %
constexpr float kPenaltyPower = 1.4f;  // the penalty is (step / steps)^1.4 + kLeastPenalty
constexpr float kLeastPenalty = 0.03f;
constexpr double kDiagonalShare = 0.9;  // of diag H in the scales of columns, the rest is its mean
constexpr int kPowerIterations = 2;     // of the rank-one magnitude, from the one before
constexpr int64_t kRows = 32;           // rows that a thread takes at a time
constexpr int64_t kColumns = 64;        // columns
constexpr int64_t kWorthThreads = 200'000;  // numbers, for threads_for()
constexpr float kLeastPivot = 0.1f;         // of the penalty, which is the least exact pivot
constexpr float kTiny = 1e-12f;

// Independent signs from a counter (splitmix64).
float random_sign(uint64_t i) {
  i = (i + 1) * 0x9e3779b97f4a7c15u;
  i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9u;
  i = (i ^ (i >> 27)) * 0x94d049bb133111ebu;
  return ((i ^ (i >> 31)) & 1) != 0 ? 1.0f : -1.0f;
}

float dot_of_magnitudes(const float* x, const float* v, int64_t count) {
  float sums[8] = {};
  int64_t j = 0;
  for (; j + 8 <= count; j += 8) {
    for (int64_t l = 0; l < 8; ++l) sums[l] += std::fabs(x[j + l]) * v[j + l];
  }
  for (; j < count; ++j) sums[0] += std::fabs(x[j]) * v[j];
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

float square_of(const Floats& v) {
  double sum = 0;
  for (const float x : v) sum += static_cast<double>(x) * x;
  return static_cast<float>(std::max(sum, 1e-30));
}

void scale_rows(const Floats& factor, int64_t rows, int64_t cols, Floats* x) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) (*x)[i * cols + j] *= factor[i];
  }
}

void scale_columns(const Floats& factor, int64_t rows, int64_t cols, Floats* x) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) (*x)[i * cols + j] *= factor[j];
  }
}

Floats inverse_of(const Floats& x) {
  Floats out;
  for (const float value : x) out.push_back(1.0f / value);
  return out;
}

// Alternates between the two sides. A half step solves for one side without the restriction but
// with a penalty that draws it to its last projection, and projects what comes out.
class Admm {
 public:
  Admm(const BinaryProblem& problem, int64_t rank)
      : p_(problem),
        rank_(rank),
        left(problem.rows, rank, 0),
        right(rank, problem.cols, uint64_t{1} << 40),
        right_v_(right.z.size()),
        dual_v_(right.z.size(), 0.0f),
        rhs_(right.z.size()),
        solution_(right.z.size()),
        left_rhs_(left.z.size()),
        gram_(static_cast<size_t>(rank * rank)),
        diagonal_(static_cast<size_t>(rank)),
        beside_(static_cast<size_t>(rank)) {}

  void run() {
    multiply(Transposed::kNone, rank_, p_.cols, p_.cols, right.z, p_.basis, &right_v_);
    for (int step = 1; step <= kSteps; ++step) {
      const float penalty =
          std::pow(static_cast<float>(step) / static_cast<float>(kSteps), kPenaltyPower);
      solve_right(penalty);
      solve_left(penalty);
    }
  }

 private:
  void multiply(Transposed transposed, int64_t m, int64_t n, int64_t k, const Floats& a,
                const Floats& b, Floats* c) const {
    kernels::multiply(transposed, m, n, k, a.data(), b.data(), c->data(), p_.threads);
  }

  // A' A B H + penalty B = A' W H + penalty (Z - U), columns of A of norm 1: with A' A = Q T Q', T
  // tridiagonal, and H = V h V' the columns x of Q' B V are those of (h T + penalty) x = Q' rhs V.
  void solve_right(float penalty) {
    Floats norms(static_cast<size_t>(rank_), 0.0f);
    for (int64_t i = 0; i < p_.rows; ++i) {
      for (int64_t k = 0; k < rank_; ++k) {
        norms[k] += left.z[i * rank_ + k] * left.z[i * rank_ + k];
      }
    }
    for (float& norm : norms) norm = std::max(std::sqrt(norm), kTiny);
    const Floats inverse = inverse_of(norms);
    for (Floats* x : {&left.z, &left.dual}) scale_columns(inverse, p_.rows, rank_, x);
    for (Floats* x : {&right.dual, &right_v_, &dual_v_}) scale_rows(norms, rank_, p_.cols, x);

    penalty += kLeastPenalty;  // the mean of A' A's diagonal is 1
    multiply(Transposed::kLeft, rank_, rank_, p_.rows, left.z, left.z, &gram_);
    multiply(Transposed::kLeft, rank_, p_.cols, p_.rows, left.z, p_.target, &rhs_);
    for_rows([&](int64_t at) { rhs_[at] += penalty * (right_v_[at] - dual_v_[at]); });
    if (!kernels::tridiagonal_symmetric(rank_, gram_.data(), diagonal_.data(), beside_.data())) {
      fail();
    }
    multiply(Transposed::kLeft, rank_, p_.cols, rank_, gram_, rhs_, &solution_);
    solve_tridiagonal(penalty);
    multiply(Transposed::kNone, rank_, p_.cols, rank_, gram_, solution_, &rhs_);
    multiply(Transposed::kRight, rank_, p_.cols, p_.cols, rhs_, p_.basis, &solution_);
    right.project(solution_, p_.threads);
    multiply(Transposed::kNone, rank_, p_.cols, p_.cols, right.z, p_.basis, &right_v_);
    for_rows([&](int64_t at) { dual_v_[at] += rhs_[at] - right_v_[at]; });
  }

  // Each column of solution_ becomes that of its system (h T + penalty) x = solution_ by
  // elimination without pivots, since the systems are positive definite. rhs_ has the pivots.
  void solve_tridiagonal(float penalty) {
    const int64_t cols = p_.cols;
    const int threads = threads_for(rank_ * cols, kWorthThreads, p_.threads);
    parallel_parts(cols, kColumns, threads, [&](int64_t first, int64_t end) {
      float* const x = solution_.data();
      float* const pivot = rhs_.data();
      for (int64_t k = 0; k < rank_; ++k) {
        for (int64_t j = first; j < end; ++j) {
          const int64_t at = k * cols + j;
          pivot[at] = p_.values[j] * diagonal_[k] + penalty;
          if (k == 0) continue;
          const float beside = p_.values[j] * beside_[k - 1];
          const float share = beside / pivot[at - cols];
          // What rounding takes from it must not make it negative.
          pivot[at] = std::max(pivot[at] - share * beside, kLeastPivot * penalty);
          x[at] -= share * x[at - cols];
        }
      }
      for (int64_t k = rank_ - 1; k >= 0; --k) {
        for (int64_t j = first; j < end; ++j) {
          const int64_t at = k * cols + j;
          if (k + 1 < rank_) x[at] -= p_.values[j] * beside_[k] * x[at + cols];
          x[at] /= pivot[at];
        }
      }
    });
  }

  // A (B H B' + penalty) = W H B' + penalty (Z - U), rows of B of norm 1.
  void solve_left(float penalty) {
    const float norm_v = std::sqrt(square_of(right.v));
    Floats norms;
    for (const float u : right.u) norms.push_back(std::max(u * norm_v, kTiny));
    const Floats inverse = inverse_of(norms);
    for (Floats* x : {&right.dual, &right_v_, &dual_v_}) scale_rows(inverse, rank_, p_.cols, x);
    for (float& u : right.u) u = std::max(u, kTiny / norm_v);
    for (int64_t k = 0; k < rank_; ++k) right.u[k] *= inverse[k];
    for (Floats* x : {&left.z, &left.dual}) scale_columns(norms, p_.rows, rank_, x);

    for (int64_t k = 0; k < rank_; ++k) {
      for (int64_t j = 0; j < p_.cols; ++j) {
        rhs_[k * p_.cols + j] = right_v_[k * p_.cols + j] * p_.values[j];
      }
    }
    multiply(Transposed::kRight, rank_, rank_, p_.cols, rhs_, right_v_, &gram_);
    multiply(Transposed::kRight, p_.rows, rank_, p_.cols, p_.target, right_v_, &left_rhs_);
    double mean = 0;
    for (int64_t k = 0; k < rank_; ++k) mean += gram_[k * rank_ + k];
    penalty = penalty * static_cast<float>(mean / static_cast<double>(rank_)) + kLeastPenalty;
    for (int64_t k = 0; k < rank_; ++k) gram_[k * rank_ + k] += penalty;
    for (size_t at = 0; at < left_rhs_.size(); ++at) {
      left_rhs_[at] += penalty * (left.z[at] - left.dual[at]);
    }
    if (!kernels::solve_rows(rank_, p_.rows, gram_.data(), left_rhs_.data(), p_.threads)) fail();
    left.project(left_rhs_, p_.threads);
  }

  template <typename Body>
  void for_rows(Body body) const {
    const int threads = threads_for(rank_ * p_.cols, kWorthThreads, p_.threads);
    parallel_parts(rank_, kRows, threads, [&](int64_t first, int64_t end) {
      for (int64_t at = first * p_.cols; at < end * p_.cols; ++at) body(at);
    });
  }

  [[noreturn]] static void fail() {
    throw Error(ErrorCode::kFailure, "dbf: the factors are not finite",
                "raise --damping, or calibrate on more tokens (--nsamples, --seqlen)");
  }

  const BinaryProblem& p_;
  int64_t rank_;

 public:
  BinarySide left, right;  // A and B with columns scaled

 private:
  Floats right_v_, dual_v_;  // right.z V and right.dual V
  Floats rhs_, solution_;    // [rank, cols]
  Floats left_rhs_;          // [rows, rank]
  Floats gram_;              // [rank, rank]
  Floats diagonal_, beside_;
};

}  // namespace

BinaryProblem::BinaryProblem(const WeightView& weight, const Hessian& hessian, int threads)
    : rows(weight.rows), cols(weight.cols), threads(threads) {
  const auto damped = [&](int64_t j) {
    return hessian.matrix[j * cols + j] + (hessian.dead[j] != 0 ? 1.0 : 0.0) + hessian.lambda;
  };
  double mean = 0;
  for (int64_t j = 0; j < cols; ++j) mean += damped(j) / static_cast<double>(cols);
  Floats inverse;
  for (int64_t j = 0; j < cols; ++j) {
    scale.push_back(
        static_cast<float>(std::sqrt(kDiagonalShare * damped(j) / mean + (1 - kDiagonalShare))));
    inverse.push_back(static_cast<float>(1 / std::sqrt(mean)) / scale.back());
  }
  double square = 0;
  for (int64_t i = 0; i < rows * cols; ++i) square += double(weight.data[i]) * weight.data[i];
  size = static_cast<float>(std::sqrt(square / static_cast<double>(rows * cols)));
  if (!std::isfinite(square)) {
    throw Error(ErrorCode::kFailure, "dbf: a weight is not finite, or too large");
  }
  if (size == 0) return;
  Floats w(weight.data, weight.data + rows * cols);
  for (float& x : w) x /= size;
  scale_columns(scale, rows, cols, &w);
  // The basis is computed in place of H.
  basis.resize(hessian.matrix.size());
  for (int64_t i = 0; i < cols; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      const double h = i == j ? damped(i) : double(hessian.matrix[i * cols + j]);
      basis[i * cols + j] = static_cast<float>(h * inverse[i] * inverse[j]);
    }
  }
  values.resize(static_cast<size_t>(cols));
  if (!kernels::eigen_symmetric(cols, basis.data(), values.data())) {
    throw Error(ErrorCode::kFailure, "dbf: the Hessian has no eigendecomposition",
                "calibrate on more tokens (--nsamples, --seqlen)");
  }
  for (float& value : values) value = std::max(value, 1e-6f);
  target.resize(w.size());
  kernels::multiply(Transposed::kNone, rows, cols, cols, w.data(), basis.data(), target.data(),
                    threads);
  scale_columns(values, rows, cols, &target);
}

BinarySide::BinarySide(int64_t rows, int64_t cols, uint64_t seed) : rows(rows), cols(cols) {
  z.resize(static_cast<size_t>(rows * cols));
  for (int64_t i = 0; i < rows * cols; ++i) z[i] = random_sign(seed + static_cast<uint64_t>(i));
  dual.assign(z.size(), 0.0f);
  u.assign(static_cast<size_t>(rows), 1.0f);
  v.assign(static_cast<size_t>(cols), 1.0f);
}

void BinarySide::project(const Floats& x, int threads) {
  threads = threads_for(rows * cols, kWorthThreads, threads);
  parallel_parts(rows, kRows, threads, [&](int64_t first, int64_t end) {
    for (int64_t at = first * cols; at < end * cols; ++at) dual[at] += x[at];
  });
  const int64_t parts = (rows + kRows - 1) / kRows;
  for (int round = 0; round < kPowerIterations; ++round) {
    const float inverse = 1.0f / square_of(v);
    sums_.assign(static_cast<size_t>(parts * cols), 0.0f);
    parallel_parts(rows, kRows, threads, [&](int64_t first, int64_t end) {
      float* const sum = sums_.data() + first / kRows * cols;
      for (int64_t i = first; i < end; ++i) {
        const float* const row = dual.data() + i * cols;
        u[i] = inverse * dot_of_magnitudes(row, v.data(), cols);
        for (int64_t j = 0; j < cols; ++j) sum[j] += u[i] * std::fabs(row[j]);
      }
    });
    const float scale = 1.0f / square_of(u);
    for (int64_t j = 0; j < cols; ++j) {
      float sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += sums_[part * cols + j];
      v[j] = scale * sum;
    }
  }
  parallel_parts(rows, kRows, threads, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        const int64_t at = i * cols + j;
        z[at] = std::copysign(u[i] * v[j], dual[at]);
        dual[at] -= z[at];
      }
    }
  });
}

BinarySides find_binary_factors(const BinaryProblem& problem, int64_t rank) {
  Admm admm(problem, rank);
  if (problem.size > 0) admm.run();
  return {std::move(admm.left), std::move(admm.right)};
}

}  // namespace billm

// Binary coding of a row's quantization group by one warp: src/quantize/binary_coder.h on a GPU.
//
// The arithmetic is that of the CPU's tiles (kernels/cpu/row_tiles.cpp), step by step. Where those
// sum over the columns i before a column c, a warp adds each column's share to all later columns as
// soon as it is known, which makes the same sums in the same order: a lane owns every 32nd column,
// and no sum crosses lanes. The exceptions are scalar products over a row's columns (descent,
// normal equations, loss), which lanes share. With one lane (OneLane, the tests) every sum has the
// CPU's order, and the codes must be the CPU's to the bit; so must this file be compiled without
// fused multiply-adds.
#pragma once

#include <math.h>

#include "kernels/cuda/coder_memory.h"
#include "kernels/cuda/coder_split.h"

namespace billm::kernels::cuda {

// One row's group, step by step; the same code in all lanes of a warp.
template <typename Lanes>
class RowCoder {
 public:
  BILLM_HOST_DEVICE RowCoder(const Lanes& lanes, const CoderParams& params, int64_t row,
                             uint8_t* memory)
      : lanes_(lanes), p_(params), row_(row), m_(memory, params.width), width_(params.width) {}

  BILLM_HOST_DEVICE void run() {
    load();
    multiply(m_.w, m_.target);
    RowCodes next{}, best{};
    best.loss = INFINITY;
    for (int c = lanes_.lane(); c < width_; c += Lanes::kLanes) {
      m_.best_q[c] = 0;
      m_.best_sign[c] = kNotBinary;
      m_.best_cls[c] = 0;
    }
    MagnitudeSplit<Lanes>(lanes_, p_, m_).first_levels(&next);
    round_levels(p_.rounding, p_.classes, 1, next.level, &next.offset);
    code(&next);
    keep_better(next, &best);
    for (int round = 0; round < p_.refine_rounds; ++round) {
      if (p_.step != nullptr) binary_target();
      refit(&next);
      round_levels(p_.rounding, p_.classes, 1, next.level, &next.offset);
      if (p_.descend && p_.feedback != CodeFeedback::kNone) {
        requantize(next);
        multiply(m_.delta, m_.residual);
        descend(&next);
      } else {
        code(&next);
      }
      keep_better(next, &best);
    }
    store(best);
  }

 private:
  static constexpr uint8_t kMinus = 0, kPlus = 1, kNotBinary = 2;

  BILLM_HOST_DEVICE const float* factor_row(int c) const {  // [width]: R[c][j]
    return p_.factor + (p_.first + c) * p_.cols + p_.first;
  }
  BILLM_HOST_DEVICE int owner(int c) const { return c % Lanes::kLanes; }
  BILLM_HOST_DEVICE bool owns(int c) const { return owner(c) == lanes_.lane(); }
  // The first of this lane's columns that is >= c.
  BILLM_HOST_DEVICE int own_from(int c) const {
    return c + (lanes_.lane() - c % Lanes::kLanes + Lanes::kLanes) % Lanes::kLanes;
  }

  // The group's weights with the feedback of the earlier groups: w += x where x R = carried.
  BILLM_HOST_DEVICE void load() {
    const int64_t at = row_ * p_.cols + p_.first;
    float* const sum = m_.residual;
    for (int c = lanes_.lane(); c < width_; c += Lanes::kLanes) {
      m_.w[c] = p_.weight[at + c];
      m_.set[c] = p_.set[p_.first + c];
      m_.keep[c] = p_.mask == nullptr || p_.mask[at + c] == p_.binary;
      sum[c] = 0;
    }
    lanes_.sync();
    if (p_.feedback == CodeFeedback::kNone) return;
    for (int c = 0; c < width_; ++c) {
      const float* const r = factor_row(c);
      float x = 0;
      if (owns(c)) {
        x = (p_.carried[row_ * width_ + c] - sum[c]) * (1.0f / r[c]);
        m_.w[c] += x;
      }
      x = lanes_.from(x, owner(c));
      for (int j = own_from(c + 1); j < width_; j += Lanes::kLanes) sum[j] += x * r[j];
    }
    lanes_.sync();
  }

  // y = x R.
  BILLM_HOST_DEVICE void multiply(const float* x, float* y) {
    for (int j = lanes_.lane(); j < width_; j += Lanes::kLanes) y[j] = 0;
    for (int i = 0; i < width_; ++i) {
      const float* const r = factor_row(i);
      for (int j = own_from(i); j < width_; j += Lanes::kLanes) y[j] += x[i] * r[j];
    }
    lanes_.sync();
  }

  // --- Levels ----------------------------------------------------------------------------------

  // What the levels have to make: the image of the weights less the integers as they are coded.
  BILLM_HOST_DEVICE void binary_target() {
    for (int c = lanes_.lane(); c < width_; c += Lanes::kLanes) {
      m_.residual[c] = m_.keep[c] != 0 ? m_.w[c] : m_.w[c] - m_.q[c];
    }
    lanes_.sync();
    multiply(m_.residual, m_.target);
  }

  // Levels by least squares for the codes as they are.
  BILLM_HOST_DEVICE void refit(RowCodes* codes) {
    int unknown[kMaxUnknowns], place[kMaxUnknowns];
    int count = 0;
    for (int set = 0; set < kColumnSets; ++set) {
      for (int k = 0; k < p_.classes[set]; ++k) unknown[count++] = set * kMaxLevels + k;
    }
    if (p_.rounding.offsets) unknown[count++] = kMaxUnknowns - 1;
    for (int u = 0; u < count; ++u) place[unknown[u]] = u;
    for (int j = lanes_.lane(); j < width_; j += Lanes::kLanes) {
      for (int u = 0; u < count; ++u) m_.images[u * width_ + j] = 0;
    }
    for (int i = 0; i < width_; ++i) {
      if (m_.sign[i] == kNotBinary) continue;
      const float* const r = factor_row(i);
      const float sign = m_.sign[i] == kPlus ? 1.0f : -1.0f;
      float* const image = m_.images + place[m_.set[i] * kMaxLevels + m_.cls[i]] * width_;
      float* const ones = m_.images + (count - 1) * width_;
      for (int j = own_from(i); j < width_; j += Lanes::kLanes) {
        image[j] += sign * r[j];
        if (p_.rounding.offsets) ones[j] += r[j];
      }
    }
    float gram[kMaxUnknowns * kMaxUnknowns], right[kMaxUnknowns];
    for (int u = 0; u < count; ++u) {
      const float* const one = m_.images + u * width_;
      right[unknown[u]] = product(one, m_.target, 0);
      for (int v = u; v < count; ++v) {
        gram[unknown[u] * kMaxUnknowns + unknown[v]] = product(one, m_.images + v * width_, 0);
      }
    }
    solve_levels(gram, right, 1, p_.classes, p_.rounding.offsets, codes->level, &codes->offset);
    lanes_.sync();
  }

  // sum over j >= first of x[j] y[j].
  BILLM_HOST_DEVICE float product(const float* x, const float* y, int first) const {
    float sum = 0;
    for (int j = own_from(first); j < width_; j += Lanes::kLanes) sum += x[j] * y[j];
    return lanes_.sum(sum);
  }

  // --- Codes -----------------------------------------------------------------------------------

  BILLM_HOST_DEVICE float value(const RowCodes& codes, int c, uint8_t sign, uint8_t cls) const {
    if (sign != kNotBinary) {
      const float level = codes.level[m_.set[c] * kMaxLevels + cls];
      return codes.offset + (sign == kPlus ? level : -level);
    }
    return p_.step != nullptr ? (static_cast<float>(cls) - p_.zero[row_]) * p_.step[row_] : 0.0f;
  }

  // The code of column c nearest to t; by the owner of c.
  BILLM_HOST_DEVICE float choose(const RowCodes& codes, int c, float t) {
    uint8_t sign = kNotBinary, cls = 0;
    if (m_.keep[c] != 0) {
      const float* const level = codes.level + m_.set[c] * kMaxLevels;
      const float centred = t - codes.offset;
      sign = centred < 0 ? kMinus : kPlus;
      const float magnitude = fabsf(centred);
      for (int k = 1; k < p_.classes[m_.set[c]]; ++k) {
        if (magnitude > (level[k - 1] + level[k]) * 0.5f) cls = static_cast<uint8_t>(k);
      }
    } else if (p_.step != nullptr) {
      const float place = t * p_.inverse[row_] + p_.zero[row_];
      cls = static_cast<uint8_t>(rintf(place > 0 ? (place < p_.last ? place : p_.last) : 0.0f));
    }
    m_.sign[c] = sign;
    m_.cls[c] = cls;
    m_.q[c] = value(codes, c, sign, cls);
    return m_.q[c];
  }

  // Column by column, each weight from its own target or, without feedback inside the group, as it
  // is. delta, codes and loss.
  BILLM_HOST_DEVICE void code(RowCodes* codes) {
    float* const sum = m_.residual;
    for (int j = lanes_.lane(); j < width_; j += Lanes::kLanes) sum[j] = 0;
    float loss = 0;
    for (int c = 0; c < width_; ++c) {
      const float* const r = factor_row(c);
      float d = 0;
      if (owns(c)) {
        const bool fed = p_.feedback == CodeFeedback::kColumns;
        const float target = fed ? m_.w[c] + sum[c] * (1.0f / r[c]) : m_.w[c];
        d = m_.w[c] - choose(*codes, c, target);
        m_.delta[c] = d;
        const float error = sum[c] + d * r[c];
        loss += error * error;
      }
      d = lanes_.from(d, owner(c));
      for (int j = own_from(c + 1); j < width_; j += Lanes::kLanes) sum[j] += d * r[j];
    }
    codes->loss = lanes_.sum(loss);
    lanes_.sync();
  }

  // The same signs and classes under new levels.
  BILLM_HOST_DEVICE void requantize(const RowCodes& codes) {
    for (int c = lanes_.lane(); c < width_; c += Lanes::kLanes) {
      m_.q[c] = value(codes, c, m_.sign[c], m_.cls[c]);
      m_.delta[c] = m_.w[c] - m_.q[c];
    }
    lanes_.sync();
  }

  // One sweep of coordinate descent: each weight in turn takes the level that is best given all the
  // others. residual = delta R on entry and exit.
  BILLM_HOST_DEVICE void descend(RowCodes* codes) {
    for (int c = 0; c < width_; ++c) {
      const float* const r = factor_row(c);
      const float dot = product(m_.residual, r, c);
      float change = 0;
      if (owns(c)) {
        const float old = m_.q[c];
        const float target = old + dot * (1.0f / p_.norm[p_.first + c]);
        change = choose(*codes, c, target) - old;
        m_.delta[c] -= change;
      }
      change = lanes_.from(change, owner(c));
      if (change == 0) continue;
      for (int j = own_from(c); j < width_; j += Lanes::kLanes) m_.residual[j] -= change * r[j];
    }
    codes->loss = product(m_.residual, m_.residual, 0);
    lanes_.sync();
  }

  BILLM_HOST_DEVICE void keep_better(const RowCodes& next, RowCodes* best) {
    if (!(next.loss < best->loss)) return;
    *best = next;
    for (int c = lanes_.lane(); c < width_; c += Lanes::kLanes) {
      m_.best_q[c] = m_.q[c];
      m_.best_sign[c] = m_.sign[c];
      m_.best_cls[c] = m_.cls[c];
    }
  }

  BILLM_HOST_DEVICE void store(const RowCodes& best) {
    const int64_t at = row_ * p_.cols + p_.first;
    for (int c = lanes_.lane(); c < width_; c += Lanes::kLanes) {
      p_.delta[at + c] = p_.weight[at + c] - m_.best_q[c];
      const uint8_t sign = m_.best_sign[c], cls = m_.best_cls[c];
      int region = 1 + cls + (m_.set[c] == 1 ? p_.classes[0] : 0), code = sign == kPlus;
      if (sign == kNotBinary) {
        region = p_.step != nullptr ? 1 + p_.classes[0] + p_.classes[1] : 0;
        code = cls;
      }
      p_.region[at + c] = static_cast<uint8_t>(region);
      p_.code[at + c] = static_cast<uint8_t>(code);
    }
    if (lanes_.lane() == 0) {
      float* const levels = p_.levels + row_ * kRowLevels;
      for (int u = 0; u < kRowLevels - 1; ++u) levels[u] = best.level[u];
      levels[kRowLevels - 1] = best.offset;
    }
    lanes_.sync();
  }

  Lanes lanes_;
  const CoderParams& p_;
  const int64_t row_;
  const RowMemory m_;
  const int width_;
};

// A block of threads: each warp codes a row; `bytes` of shared memory for each.
template <typename Thread>
BILLM_HOST_DEVICE void coder_body(Thread& thread, const CoderParams& params, int warps,
                                  int64_t bytes) {
  const int warp = thread.index() / 32;
  const int64_t row = int64_t{thread.block_x()} * warps + warp;
  if (row >= params.rows) return;
  RowCoder<WarpLanes<Thread>>({thread}, params, row, thread.shared() + warp * bytes).run();
}

}  // namespace billm::kernels::cuda

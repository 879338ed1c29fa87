// Fibers by ucontext: see cuda_emulator.h.
#include "support/cuda_emulator.h"

#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

#include "billm/base/half.h"
#include "support/sanitized.h"

#if defined(BILLM_SANITIZED)
#include <sanitizer/common_interface_defs.h>
#endif

namespace billm::test {
namespace {

constexpr int kLanes = 32;
constexpr size_t kStackBytes = 256 * 1024;

// What the lanes of a warp do together.
enum class Together { kNone, kMax, kXor, kShuffle, kMmaBytes, kMmaHalves };

int32_t signed_byte(uint32_t word, int i) {
  return static_cast<int8_t>(static_cast<uint8_t>(word >> (8 * i)));
}
double half_of(uint32_t word, int i) {
  return double{half_to_float(static_cast<uint16_t>(word >> (16 * i)))};
}
float as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t as_bits(float value) { return std::bit_cast<uint32_t>(value); }

struct Warp {
  Together kind = Together::kNone;
  int arrived = 0;
  uint64_t round = 0;
  std::array<std::array<uint32_t, 10>, kLanes> in;
  std::array<std::array<uint32_t, 4>, kLanes> out;

  void compute();
  template <int K, typename Number, typename Get, typename Read, typename Write>
  void multiply(Get get, Read read, Write write);
};

// The fragments of mma.m16n8kK as the PTX manual has them: lane 4 g + t has of A the rows g and g +
// 8 (register r: row g + 8 (r & 1), columns from K / 2 (r >> 1)), of B the column g, of C the
// columns 2 t and 2 t + 1.
template <int K, typename Number, typename Get, typename Read, typename Write>
void Warp::multiply(Get get, Read read, Write write) {
  constexpr int kEach = K / 8;  // numbers of a register
  static Number a[16][K], b[K][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r) {
      for (int i = 0; i < kEach; ++i) {
        a[g + 8 * (r & 1)][kEach * t + i + K / 2 * (r >> 1)] = get(in[lane][r], i);
        if (r < 2) b[kEach * t + i + K / 2 * r][g] = get(in[lane][4 + r], i);
      }
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i >> 1), col = 2 * (lane % 4) + (i & 1);
      Number sum = read(in[lane][6 + i]);
      for (int k = 0; k < K; ++k) sum += a[row][k] * b[k][col];
      out[lane][i] = write(sum);
    }
  }
}

void Warp::compute() {
  switch (kind) {
    case Together::kNone:
      break;
    case Together::kMax: {
      uint32_t largest = 0;
      for (const auto& one : in) largest = std::max(largest, one[0]);
      for (auto& one : out) one[0] = largest;
      break;
    }
    case Together::kXor:
    case Together::kShuffle:
      for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const uint32_t from = kind == Together::kXor ? lane ^ in[lane][1] : in[lane][1];
        if (from >= kLanes) throw std::runtime_error("shuffle from a lane beyond the warp");
        out[lane][0] = in[from][0];
      }
      break;
    case Together::kMmaBytes:
      multiply<32, int64_t>([](uint32_t word, int i) { return int64_t{signed_byte(word, i)}; },
                            [](uint32_t word) { return int64_t{static_cast<int32_t>(word)}; },
                            [](int64_t sum) {
                              if (sum != int64_t{static_cast<int32_t>(sum)})
                                throw std::runtime_error("overflow");
                              return static_cast<uint32_t>(sum);
                            });
      break;
    case Together::kMmaHalves:
      multiply<16, double>(
          half_of, [](uint32_t word) { return double{as_float(word)}; },
          [](double sum) { return as_bits(static_cast<float>(sum)); });
      break;
  }
}

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  EmulatedThread thread;
  bool done = false;
  const uint64_t* waits_for = nullptr;  // runs again when this is no longer `seen`
  uint64_t seen = 0;
};

}  // namespace

class EmulatedBlock {
 public:
  EmulatedBlock(int threads, int shared_bytes, const std::function<void(EmulatedThread&)>& body)
      : body_(body), fibers_(threads), warps_((threads + kLanes - 1) / kLanes) {
    if (threads < 1 || threads > 1024 || threads % kLanes != 0) {
      throw std::runtime_error("a block of " + std::to_string(threads) + " threads");
    }
    if (shared_bytes < 0 || shared_bytes > 227 * 1024) {
      throw std::runtime_error(std::to_string(shared_bytes) + " bytes of shared memory");
    }
    // Exactly so many bytes, so that the address sanitizer sees what lies beyond.
    storage_.reset(static_cast<uint8_t*>(
        std::aligned_alloc(128, (static_cast<size_t>(shared_bytes) + 127) / 128 * 128)));
    shared_bytes_ = static_cast<size_t>(shared_bytes);
  }

  void run(int x, int y, WarpOrder order) {
    block_x = x;
    block_y = y;
    std::memset(storage_.get(), 0xff, shared_bytes_);
    for (size_t i = 0; i < fibers_.size(); ++i) start(fibers_[i], i);
    for (Warp& warp : warps_) warp.kind = Together::kNone, warp.arrived = 0;
    arrived_ = 0;
    bool progress = true;
    while (progress) {
      progress = false;
      for (size_t i = 0; i < warps_.size(); ++i) {
        const size_t w = order == WarpOrder::kForward ? i : warps_.size() - 1 - i;
        while (run_warp(w)) progress = true;
      }
    }
    if (problem_) std::rethrow_exception(problem_);
    for (const Fiber& fiber : fibers_) {
      if (!fiber.done) throw std::runtime_error("deadlock: not all threads come to a barrier");
    }
  }

  // The current fiber waits until `*counter` has changed.
  void wait(const uint64_t* counter) {
    Fiber& fiber = fibers_[current_];
    fiber.waits_for = counter;
    fiber.seen = *counter;
    leave(fiber, false);
  }

  void sync() {
    if (++arrived_ == fibers_.size()) {
      arrived_ = 0;
      ++round_;
    } else {
      wait(&round_);
    }
  }

  const std::array<uint32_t, 4>& together(int index, Together kind,
                                          const std::array<uint32_t, 10>& in) {
    Warp& warp = warps_[static_cast<size_t>(index / kLanes)];
    if (warp.arrived > 0 && warp.kind != kind) {
      throw std::runtime_error("lanes of a warp do different things together");
    }
    warp.kind = kind;
    warp.in[static_cast<size_t>(index % kLanes)] = in;
    if (++warp.arrived == kLanes) {
      warp.compute();
      warp.arrived = 0;
      ++warp.round;
    } else {
      wait(&warp.round);
    }
    return warp.out[static_cast<size_t>(index % kLanes)];
  }

  int block_x = 0, block_y = 0;
  uint8_t* shared() const { return storage_.get(); }

 private:
  struct Free {
    void operator()(uint8_t* pointer) const { std::free(pointer); }
  };

  // A function of its own: the caller's variables would not survive getcontext returning twice,
  // which it does not do here, but the compiler cannot know.
  void start(Fiber& fiber, size_t index) {
    fiber.thread = EmulatedThread();
    fiber.thread.block_ = this;
    fiber.thread.index_ = static_cast<int>(index);
    fiber.done = false;
    fiber.waits_for = nullptr;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    const auto self = reinterpret_cast<uintptr_t>(this);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(&EmulatedBlock::entry), 3,
                static_cast<unsigned>(self >> 32), static_cast<unsigned>(self),
                static_cast<unsigned>(index));
  }

  static void entry(unsigned high, unsigned low, unsigned index) {
    auto* block = reinterpret_cast<EmulatedBlock*>(uintptr_t{high} << 32 | low);
#if defined(BILLM_SANITIZED)
    __sanitizer_finish_switch_fiber(nullptr, &block->main_bottom_, &block->main_size_);
#endif
    Fiber& fiber = block->fibers_[index];
    try {
      block->body_(fiber.thread);
    } catch (...) {
      block->problem_ = std::current_exception();
    }
    fiber.done = true;
    block->leave(fiber, true);
  }

  void leave(Fiber& fiber, [[maybe_unused]] bool forever) {
#if defined(BILLM_SANITIZED)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(forever ? nullptr : &fake, main_bottom_, main_size_);
#endif
    swapcontext(&fiber.context, &main_);
#if defined(BILLM_SANITIZED)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  bool run_warp(size_t warp) {
    bool progress = false;
    for (size_t i = warp * kLanes; i < std::min(fibers_.size(), (warp + 1) * kLanes); ++i) {
      Fiber& fiber = fibers_[i];
      if (problem_ || fiber.done) continue;
      if (fiber.waits_for != nullptr && *fiber.waits_for == fiber.seen) continue;
      fiber.waits_for = nullptr;
      progress = true;
      current_ = i;
#if defined(BILLM_SANITIZED)
      void* fake = nullptr;
      __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), kStackBytes);
#endif
      swapcontext(&main_, &fiber.context);
#if defined(BILLM_SANITIZED)
      __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    }
    return progress;
  }

  const std::function<void(EmulatedThread&)>& body_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::unique_ptr<uint8_t, Free> storage_;
  size_t shared_bytes_ = 0;
  ucontext_t main_{};
  size_t current_ = 0, arrived_ = 0;
  uint64_t round_ = 0;
  std::exception_ptr problem_;
  [[maybe_unused]] const void* main_bottom_ = nullptr;
  [[maybe_unused]] size_t main_size_ = 0;
};

int EmulatedThread::block_x() const { return block_->block_x; }
int EmulatedThread::block_y() const { return block_->block_y; }
uint8_t* EmulatedThread::shared() const { return block_->shared(); }
void EmulatedThread::sync() { block_->sync(); }

uint32_t EmulatedThread::max_of_warp(uint32_t value) {
  return block_->together(index_, Together::kMax, {value})[0];
}
float EmulatedThread::shuffle_xor(float value, int mask) {
  return as_float(
      block_->together(index_, Together::kXor, {as_bits(value), static_cast<uint32_t>(mask)})[0]);
}
int EmulatedThread::shuffle(int value, int lane) {
  return static_cast<int>(block_->together(
      index_, Together::kShuffle, {static_cast<uint32_t>(value), static_cast<uint32_t>(lane)})[0]);
}
void EmulatedThread::mma_bytes(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                               uint32_t b0, uint32_t b1) {
  std::array<uint32_t, 10> in = {a0, a1, a2, a3, b0, b1};
  for (size_t i = 0; i < 4; ++i) in[6 + i] = static_cast<uint32_t>(c[i]);
  const auto& out = block_->together(index_, Together::kMmaBytes, in);
  for (size_t i = 0; i < 4; ++i) c[i] = static_cast<int>(out[i]);
}
void EmulatedThread::mma_halves(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                uint32_t b0, uint32_t b1) {
  std::array<uint32_t, 10> in = {a0, a1, a2, a3, b0, b1};
  for (size_t i = 0; i < 4; ++i) in[6 + i] = as_bits(c[i]);
  const auto& out = block_->together(index_, Together::kMmaHalves, in);
  for (size_t i = 0; i < 4; ++i) c[i] = as_float(out[i]);
}

void EmulatedThread::copy_16(void* to, const void* from) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    throw std::runtime_error("copy_16: not aligned");
  }
  std::memset(to, 0xff, 16);  // until it is waited for
  open_.push_back({to, from});
}
void EmulatedThread::commit_copies() {
  committed_.push_back(std::move(open_));
  open_.clear();
}
void EmulatedThread::wait_for_copies(size_t pending) {
  for (; committed_.size() > pending; committed_.pop_front()) {
    for (const Copy& copy : committed_.front()) std::memcpy(copy.to, copy.from, 16);
  }
}

void run_grid(int grid_x, int grid_y, int threads, int shared_bytes, WarpOrder order,
              const std::function<void(EmulatedThread&)>& body) {
  if (grid_x < 1 || grid_y < 1 || grid_y > 65535) throw std::runtime_error("no such grid");
  EmulatedBlock block(threads, shared_bytes, body);
  for (int y = 0; y < grid_y; ++y) {
    for (int x = 0; x < grid_x; ++x) block.run(x, y, order);
  }
}

}  // namespace billm::test

// A GPU in plain C++ that runs the bodies of CUDA kernels (kernels/cuda/*_body.h) thread by thread,
// so that a machine without a GPU tests all of a kernel but what the hardware does: every thread is
// a fiber with its own stack, and warps and blocks meet where the kernel says so.
//
// It is stricter than hardware: shared memory starts as NaN, a copy arrives only when it is waited
// for, misaligned copies and lanes of a warp that call different functions are errors, and a
// barrier that not all threads reach is a deadlock that is reported.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace billm::test {

class EmulatedBlock;

// The same members as kernels/cuda/device_thread.h.
class EmulatedThread {
 public:
  int index() const { return index_; }
  int block_x() const;
  int block_y() const;
  uint8_t* shared() const;
  void sync();
  void sync_warp() { shuffle(0, 0); }

  uint32_t max_of_warp(uint32_t value);
  float shuffle_xor(float value, int mask);
  int shuffle(int value, int lane);
  void mma_bytes(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                 uint32_t b1);
  void mma_halves(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                  uint32_t b1);

  void copy_16(void* to, const void* from);
  void commit_copies();
  template <int Pending>
  void wait_copies() {
    wait_for_copies(Pending);
  }

 private:
  friend class EmulatedBlock;
  struct Copy {
    void* to;
    const void* from;
  };
  void wait_for_copies(size_t pending);

  EmulatedBlock* block_ = nullptr;
  int index_ = 0;
  std::vector<Copy> open_;
  std::deque<std::vector<Copy>> committed_;
};

// The order in which warps run between barriers: a race between them shows as a difference.
enum class WarpOrder { kForward, kBackward };

// Runs all blocks of a grid, one after the other. Throws std::runtime_error for what hardware would
// hang at or leave undefined.
void run_grid(int grid_x, int grid_y, int threads, int shared_bytes, WarpOrder order,
              const std::function<void(EmulatedThread&)>& body);

}  // namespace billm::test

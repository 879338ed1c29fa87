// A thread of a GPU, as the bodies of the kernels see it: its place, shared memory, and what
// threads do together. The emulator of the tests has the same members.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace billm::kernels::cuda {

extern __shared__ __align__(128) unsigned char dynamic_shared[];

class DeviceThread {
 public:
  __device__ int index() const { return static_cast<int>(threadIdx.x); }
  __device__ int block_x() const { return static_cast<int>(blockIdx.x); }
  __device__ int block_y() const { return static_cast<int>(blockIdx.y); }
  __device__ uint8_t* shared() const { return dynamic_shared; }
  __device__ void sync() const { __syncthreads(); }
  __device__ void sync_warp() const { __syncwarp(); }

  // All 32 lanes must call these together.
  __device__ uint32_t max_of_warp(uint32_t value) const {
    return __reduce_max_sync(0xffffffffu, value);
  }
  __device__ float shuffle_xor(float value, int mask) const {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
  __device__ int shuffle(int value, int lane) const {
    return __shfl_sync(0xffffffffu, value, lane);
  }

  // c [16, 8] += a [16, 32] b [32, 8] of signed bytes.
  __device__ void mma_bytes(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                            uint32_t b0, uint32_t b1) const {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
  // c [16, 8] += a [16, 16] b [16, 8] of halves, sums in fp32.
  __device__ void mma_halves(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                             uint32_t b0, uint32_t b1) const {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }

  // 16 bytes from global to shared memory, past the first-level cache; both aligned to 16.
  __device__ void copy_16(void* to, const void* from) const {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
  }
  __device__ void commit_copies() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
  // Waits until all but the last `Pending` commits of this thread have arrived.
  template <int Pending>
  __device__ void wait_copies() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
  }
};

}  // namespace billm::kernels::cuda

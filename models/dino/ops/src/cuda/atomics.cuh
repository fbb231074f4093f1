// Additions to global memory whose results nobody waits for.
#pragma once

#include "numbers.cuh"

// CUDA 12.1 is the first whose assembler knows the instruction.
#if defined(__CUDACC__) && __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1201
#define MSDA_WIDE_REDUCTIONS
#endif

namespace msda {

// Adds N numbers that lie together; 16 bytes at a time where the GPU can.
template <int N>
__device__ __forceinline__ void add(float* p, const float (&x)[N]) {
#if defined(MSDA_WIDE_REDUCTIONS) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kTogether = N % 4 == 0 ? N : 0;
#pragma unroll
  for (int i = 0; i < kTogether; i += 4) {
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p + i), "f"(x[i]), "f"(x[i + 1]),
                 "f"(x[i + 2]), "f"(x[i + 3])
                 : "memory");
  }
#else
  constexpr int kTogether = 0;
#endif
#pragma unroll
  for (int i = kTogether; i < N; ++i) atomicAdd(p + i, x[i]);
}

template <int N>
__device__ __forceinline__ void add(double* p, const double (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) atomicAdd(p + i, x[i]);
}

}  // namespace msda

// As much of CUDA as the kernels of models/dino/ops use, on the CPU: every thread of a block is a fiber, blocks run
// one after another. A barrier that not all threads of a block (a warp) reach, or that they reach in different
// places, ends the program with a message. This tests what the kernels compute, not how fast or how the memory of a
// GPU orders things.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
typedef struct CUstream_st* cudaStream_t;

namespace emulator {

enum class Barrier { kNone, kBlock, kWarp, kShuffle };

// Runs `body` once per thread of every block.
void run(unsigned blocks, unsigned threads, const std::function<void()>& body);
// Waits for the other threads of the block or the warp.
void wait(Barrier barrier);
// What the next launch answers instead of running; what cudaGetLastError tells and forgets.
extern cudaError_t refusal, last_error;
// 8 bytes per thread of the block, for shuffles.
uint64_t& mailbox(unsigned thread);

template <typename... P, size_t... i>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<i...>) {
  kernel(*static_cast<P*>(arguments[i])...);
}

template <typename T>
T shuffle(T x, unsigned from, bool in_warp) {
  const unsigned me = threadIdx.x;
  mailbox(me) = 0;
  std::memcpy(&mailbox(me), &x, sizeof(x));
  wait(Barrier::kShuffle);
  T result = x;
  if (in_warp) std::memcpy(&result, &mailbox(me / 32 * 32 + from), sizeof(result));
  wait(Barrier::kShuffle);
  return result;
}

}  // namespace emulator

inline cudaError_t cudaGetLastError() { return std::exchange(emulator::last_error, cudaSuccess); }

template <typename... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments, size_t, cudaStream_t) {
  if (emulator::refusal != cudaSuccess) return emulator::last_error = std::exchange(emulator::refusal, cudaSuccess);
  emulator::run(grid.x, block.x, [&] { emulator::call(kernel, arguments, std::index_sequence_for<P...>()); });
  return cudaSuccess;
}

inline void __syncthreads() { emulator::wait(emulator::Barrier::kBlock); }
inline void __syncwarp(unsigned = ~0u) { emulator::wait(emulator::Barrier::kWarp); }

template <typename T>
T __shfl_xor_sync(unsigned, T x, int step) {
  return emulator::shuffle(x, (threadIdx.x % 32) ^ unsigned(step), true);
}
template <typename T>
T __shfl_up_sync(unsigned, T x, unsigned step) {
  const unsigned lane = threadIdx.x % 32;
  return emulator::shuffle(x, lane - step, lane >= step);
}

template <typename T>
T __ldg(const T* p) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) emulator::wait(emulator::Barrier::kNone);
  return *p;
}

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
inline float __expf(float x) { return std::exp(x); }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

// Fibers change places only at barriers, so plain code is atomic.
template <typename T>
T atomicAdd(T* p, T x) {
  const T old = *p;
  *p += x;
  return old;
}
inline int atomicMin(int* p, int x) {
  const int old = *p;
  *p = min(old, x);
  return old;
}
inline int atomicMax(int* p, int x) {
  const int old = *p;
  *p = max(old, x);
  return old;
}

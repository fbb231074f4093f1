// Numbers as they lie in memory, 16 bytes at a time, and as they are computed with.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "../common/arguments.h"

namespace msda {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <typename T>
using accumulator_t = typename Accumulator<T>::type;

__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ double number(double x) { return x; }
__device__ __forceinline__ float number(Half x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ float number(BFloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }

__device__ __forceinline__ void assign(float& out, float x) { out = x; }
__device__ __forceinline__ void assign(double& out, double x) { out = x; }
__device__ __forceinline__ void assign(Half& out, float x) { out.bits = __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ void assign(BFloat16& out, float x) {
  const uint32_t bits = __float_as_uint(x);
  out.bits = uint16_t(x != x ? 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <typename X>
struct alignas(sizeof(X) * 4) Four {
  X x[4];
};

template <typename A, int N>
struct Pack {
  A x[N];
};

// N numbers that lie together are one access when they fill 2 to 16 bytes and begin at a multiple of that.

template <int bytes>
struct Word;
template <>
struct Word<16> {
  using type = uint4;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<4> {
  using type = uint32_t;
};
template <>
struct Word<2> {
  using type = uint16_t;
};

// Keeps a sum in a register. Without it the compiler adds its constant part anew at every use.
__device__ __forceinline__ const char* in_register(const char* p) {
#if defined(__CUDA_ARCH__)
  asm("" : "+l"(p));
#endif
  return p;
}

template <typename T, int N>
using word_t = typename Word<sizeof(T) * N>::type;

// Through the read-only path: nothing that a kernel reads this way is written while it runs.
template <typename T, int N>
__device__ __forceinline__ word_t<T, N> load_word(const void* p) {
  return __ldg(static_cast<const word_t<T, N>*>(p));
}

// Number i of a word.
template <typename T, int N>
__device__ __forceinline__ accumulator_t<T> number_in(const word_t<T, N>& word, int i) {
  if constexpr (sizeof(T) == 2 && N > 1) {
    const uint32_t pair = reinterpret_cast<const uint32_t*>(&word)[i / 2];
    if constexpr (std::is_same<T, BFloat16>::value) return __uint_as_float(i % 2 ? pair & 0xffff0000u : pair << 16);
    return number(T{uint16_t(i % 2 ? pair >> 16 : pair)});
  } else {
    return number(reinterpret_cast<const T*>(&word)[i]);
  }
}

template <typename T, int N>
__device__ __forceinline__ Pack<accumulator_t<T>, N> load(const T* p) {
  const word_t<T, N> word = load_word<T, N>(p);
  Pack<accumulator_t<T>, N> out;
#pragma unroll
  for (int i = 0; i < N; ++i) out.x[i] = number_in<T, N>(word, i);
  return out;
}

template <typename T, int N>
__device__ __forceinline__ void store(T* p, const accumulator_t<T> (&x)[N]) {
  union {
    word_t<T, N> word;
    T numbers[N];
  } u;
#pragma unroll
  for (int i = 0; i < N; ++i) assign(u.numbers[i], x[i]);
  *reinterpret_cast<word_t<T, N>*>(p) = u.word;
}

}  // namespace msda

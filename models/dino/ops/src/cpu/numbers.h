// Numbers as they lie in the tensors. Everything behind this file computes in A, float or double; 16-bit numbers
// exist only between a load and a conversion.
#pragma once

#include "kernel.h"
#include "vector.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {

inline float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
inline uint32_t as_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

inline float float_of_bfloat16(uint16_t bits) { return as_float(uint32_t(bits) << 16); }

inline float float_of_half(uint16_t bits) {
  // Exponent and mantissa move to float's places; the product by 2^112 mends the bias, subnormals included.
  const uint32_t magnitude = (bits & 0x7fffu) << 13;
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  return as_float(as_bits(as_float(magnitude) * 0x1p112f) | special | (uint32_t(bits & 0x8000u) << 16));
}

// Rounding to the nearest, ties to even.
inline uint16_t bfloat16_of_float(float x) {
  const uint32_t bits = as_bits(x);
  return uint16_t(x != x ? 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline uint16_t half_of_float(float x) {
  const uint32_t sign = (as_bits(x) >> 16) & 0x8000u, bits = as_bits(x) & 0x7fffffffu;
  // Below 2^-14, adding 0.5 leaves in the low bits what a half keeps, rounded by the adder.
  const uint32_t subnormal = as_bits(as_float(bits) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  uint32_t result = bits < 0x38800000u ? subnormal : normal;
  result = bits >= 0x477ff000u ? 0x7c00u : result;  // 65520 and above round to infinity
  result = bits > 0x7f800000u ? 0x7e00u : result;   // NaN
  return uint16_t(result | sign);
}

// Numbers [first, first + count) of an array of `kind`.
inline void read(Number kind, const void* array, int64_t first, int64_t count, float* __restrict out) {
  if (kind == Number::kFloat) {
    std::memcpy(out, static_cast<const float*>(array) + first, size_t(count) * sizeof(float));
  } else if (kind == Number::kBFloat16) {
    const uint16_t* in = static_cast<const uint16_t*>(array) + first;
    for (int64_t i = 0; i < count; ++i) out[i] = float_of_bfloat16(in[i]);
  } else {
    const uint16_t* in = static_cast<const uint16_t*>(array) + first;
    for (int64_t i = 0; i < count; ++i) out[i] = float_of_half(in[i]);
  }
}
inline void read(Number, const void* array, int64_t first, int64_t count, double* __restrict out) {
  std::memcpy(out, static_cast<const double*>(array) + first, size_t(count) * sizeof(double));
}

inline void write(Number kind, void* array, int64_t first, int64_t count, const float* __restrict in) {
  if (kind == Number::kFloat) {
    std::memcpy(static_cast<float*>(array) + first, in, size_t(count) * sizeof(float));
  } else if (kind == Number::kBFloat16) {
    uint16_t* out = static_cast<uint16_t*>(array) + first;
    for (int64_t i = 0; i < count; ++i) out[i] = bfloat16_of_float(in[i]);
  } else {
    uint16_t* out = static_cast<uint16_t*>(array) + first;
    for (int64_t i = 0; i < count; ++i) out[i] = half_of_float(in[i]);
  }
}
inline void write(Number, void* array, int64_t first, int64_t count, const double* __restrict in) {
  std::memcpy(static_cast<double*>(array) + first, in, size_t(count) * sizeof(double));
}

inline int64_t bytes_of(Number kind) {
  return kind == Number::kDouble ? 8 : kind == Number::kFloat ? 4 : 2;
}

inline void prefetch(Number kind, const void* array, int64_t first, int64_t count) {
  const char* p = static_cast<const char*>(array) + first * bytes_of(kind);
  for (int64_t i = 0; i < count * bytes_of(kind); i += 64) __builtin_prefetch(p + i);
}

// The same for numbers that will be written. Stores leave in order: one that waits for memory holds up all others,
// and a walk over one head writes a line or two of every page.
inline void prefetch_to_write(Number kind, void* array, int64_t first, int64_t count) {
  char* p = static_cast<char*>(array) + first * bytes_of(kind);
  for (int64_t i = 0; i < count * bytes_of(kind); i += 64) __builtin_prefetch(p + i, 1);
}

template <typename A>
void zero(A* out, int64_t count) {
  std::memset(static_cast<void*>(out), 0, size_t(count) * sizeof(A));
}

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

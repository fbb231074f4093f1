// The softmax of one query and head, written so that it vectorises.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "isa.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {

// e^x for x <= 0, within 2 ulp; 0 below -87.3, where float would leave the normal numbers. NaN stays NaN.
inline float exponential(float x) {
  const float low = x < -87.3f ? -87.3f : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const float shifted = low * 1.44269504f + 12582912.0f;
  const float power = shifted - 12582912.0f;
  // ln 2 in two parts: the product with the first is exact.
  const float r = (low - power * 0.693359375f) + power * 2.12194440e-4f;
  float sum = 1.9875691500e-4f;
  sum = sum * r + 1.3981999507e-3f;
  sum = sum * r + 8.3334519073e-3f;
  sum = sum * r + 4.1665795894e-2f;
  sum = sum * r + 1.6666665459e-1f;
  sum = sum * r + 5.0000001201e-1f;
  sum = sum * r * r + r + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits - 0x4b400000u + 127u) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return x < -87.3f ? 0.0f : sum * scale;
}
inline double exponential(double x) { return std::exp(x); }

constexpr int kLanes = 16;

// One number from 16, by halves: each step is one vector instruction.
template <typename A, typename Op>
inline A reduce(A (&x)[kLanes], Op op) {
  for (int j = 0; j < 8; ++j) x[j] = op(x[j], x[j + 8]);
  for (int j = 0; j < 4; ++j) x[j] = op(x[j], x[j + 4]);
  return op(op(x[0], x[2]), op(x[1], x[3]));
}

// In place, over blocks of 16 numbers. Lanes that take no part hold minus infinity and come out as 0.
template <typename A>
void softmax(A* __restrict x, int blocks) {
  const auto larger = [](A a, A b) { return a > b ? a : b; };
  alignas(64) A lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = x[j];
  for (int i = 1; i < blocks; ++i) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = larger(lanes[j], x[i * kLanes + j]);
  }
  const A largest = reduce(lanes, larger);
  for (int j = 0; j < kLanes; ++j) lanes[j] = 0;
  for (int i = 0; i < blocks; ++i) {
    for (int j = 0; j < kLanes; ++j) x[i * kLanes + j] = exponential(x[i * kLanes + j] - largest);
    for (int j = 0; j < kLanes; ++j) lanes[j] += x[i * kLanes + j];
  }
  const A scale = A(1) / reduce(lanes, [](A a, A b) { return a + b; });
  for (int k = 0; k < blocks * kLanes; ++k) x[k] *= scale;
}

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

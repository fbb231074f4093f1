// Short vectors of the instruction set that the file is compiled for, through the vector extension of GCC and
// Clang.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "isa.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename A>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes), may_alias));
  typedef float unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes), may_alias));
  typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};
template <typename A>
using vector_t = typename VectorOf<A>::type;
template <typename A>
constexpr int kWidth = kVectorBytes / int(sizeof(A));

template <typename A>
inline vector_t<A> load(const A* p) {
  return *reinterpret_cast<const typename VectorOf<A>::unaligned*>(p);
}
template <typename A>
inline void store(A* p, vector_t<A> v) {
  *reinterpret_cast<typename VectorOf<A>::unaligned*>(p) = v;
}

// Sums of neighbours, those of `a` first: half a step of summing rows.
template <typename A, int... i>
inline vector_t<A> pair_sums(vector_t<A> a, vector_t<A> b, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b, (2 * i)...) + __builtin_shufflevector(a, b, (2 * i + 1)...);
}

// out[k] = sum of row k, for as many rows as a vector has elements: rows meet in pairs, so that every addition is
// one of whole vectors.
template <typename A>
inline void row_sums(const A (*x)[kWidth<A>], A* out) {
  constexpr int width = kWidth<A>;
  vector_t<A> sums[width];
  for (int k = 0; k < width; ++k) sums[k] = load(x[k]);
#pragma GCC unroll 16
  for (int count = width; count > 1; count /= 2) {
#pragma GCC unroll 16
    for (int k = 0; k < count / 2; ++k) {
      sums[k] = pair_sums<A>(sums[2 * k], sums[2 * k + 1], std::make_integer_sequence<int, width>());
    }
  }
  store(out, sums[0]);
}

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

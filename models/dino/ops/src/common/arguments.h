// One call of the op as plain data, shared by the binding, the CPU kernels and the CUDA kernels.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define MSDA_HD __host__ __device__ __forceinline__
#else
#define MSDA_HD inline __attribute__((always_inline))
#endif

namespace msda {

// How a sample finds its pixel.
enum class Form : int {
  kLocations = 0,  // plain: a location in 0..1, a weight
  kPoints = 1,     // fused: a reference point, an offset in pixels, a logit
  kBoxes = 2,      // fused: a reference box cxcywh, an offset in half boxes divided by the points, a logit
};

// On CUDA devices, where level shapes travel in the kernel's parameters: no copy and no synchronisation.
constexpr int kMostLevels = 64;

struct Level {
  int32_t height;
  int32_t width;
  int32_t start;  // first token of the level
};

// Letters as in the Python code: value (B, S, H, C), positions (B, Q, H, L, P, 2), weights (B, Q, H, L, P).
struct Sizes {
  int64_t batch;
  int64_t tokens;
  int64_t queries;
  int32_t heads;
  int32_t channels;
  int32_t levels;
  int32_t points;

  MSDA_HD int32_t samples() const { return levels * points; }
};

enum class Number : int { kFloat = 0, kDouble = 1, kHalf = 2, kBFloat16 = 3 };

// T is the type that `number` names, A is double for double and float for the rest. All arrays are contiguous.
struct Arguments {
  Sizes sizes;
  Form form;
  Number number;
  const Level* levels;      // (L)
  const void* value;        // (B, S, H, C) T
  const void* positions;    // (B, Q, H, L, P, 2): locations A, or offsets T
  const void* attention;    // (B, Q, H, L, P): weights A, or logits T
  const void* reference;    // (B, Q, L, 2 or 4) A, or null in the plain form
  const bool* mask;         // (B, S) true = counts as zero, or null
  void* output;             // (B, Q, H * C) T
  const void* grad_output;  // (B, Q, H * C) T
  void* grad_value;         // (B, S, H, C) T
  void* grad_positions;     // as positions; A and with respect to pixels when pixel_gradients
  void* grad_attention;     // as attention
  bool pixel_gradients;

  Number working() const { return number == Number::kDouble ? Number::kDouble : Number::kFloat; }
  // The type of positions and attention.
  Number given() const { return form == Form::kLocations ? working() : number; }
};

}  // namespace msda

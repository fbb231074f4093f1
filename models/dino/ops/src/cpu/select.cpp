// Chooses among the instruction sets that the build compiled kernels.cpp for (MSDA_WITH_*).
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "kernel.h"

namespace msda {

#define MSDA_DECLARE(isa) \
  namespace isa { \
  extern const Kernels float_kernels, double_kernels; \
  }
MSDA_DECLARE(isa_avx512)
MSDA_DECLARE(isa_avx2)
MSDA_DECLARE(isa_baseline)
#undef MSDA_DECLARE

namespace {

struct Choice {
  const Kernels* float_kernels;
  const Kernels* double_kernels;
};

// 2 for AVX-512, 1 for AVX2, 0 below.
int rank_of_processor() {
  int rank = 0;
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  rank = avx2 && avx512 ? 2 : avx2 ? 1 : 0;
#endif
  const char* limit = std::getenv("ATEN_CPU_CAPABILITY");
  if (limit && !std::strcmp(limit, "default")) return 0;
  if (limit && !std::strcmp(limit, "avx2") && rank > 1) return 1;
  return rank;
}

Choice choose() {
  const int rank = rank_of_processor();
#if defined(MSDA_WITH_AVX512)
  if (rank >= 2) return {&isa_avx512::float_kernels, &isa_avx512::double_kernels};
#endif
#if defined(MSDA_WITH_AVX2)
  if (rank >= 1) return {&isa_avx2::float_kernels, &isa_avx2::double_kernels};
#endif
#if defined(MSDA_WITH_BASELINE)
  if (rank >= 0) return {&isa_baseline::float_kernels, &isa_baseline::double_kernels};
#endif
  throw std::runtime_error("ms_deform_attn was compiled for another processor than this one");
}

}  // namespace

const Kernels& kernels_for(Number number) {
  static const Choice choice = choose();
  return number == Number::kDouble ? *choice.double_kernels : *choice.float_kernels;
}

}  // namespace msda

// kernels.cpp is compiled once per instruction set. Everything in it lives in a namespace of that set, so that
// the linker never takes code of one set for another's.
#pragma once

#if defined(__AVX512F__)
#define MSDA_ISA_NAMESPACE isa_avx512
#define MSDA_ISA_NAME "AVX-512"
#elif defined(__AVX2__)
#define MSDA_ISA_NAMESPACE isa_avx2
#define MSDA_ISA_NAME "AVX2"
#else
#define MSDA_ISA_NAMESPACE isa_baseline
#define MSDA_ISA_NAME "baseline"
#endif

// The CPU kernels for the instruction set that this file is compiled for. Includes no PyTorch header, so it
// compiles in seconds.
#include "backward.h"
#include "forward.h"
#include "pack.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {
namespace {

template <typename A>
int64_t copy_bytes(const Arguments& arguments) {
  return Layout<A>(arguments).numbers() * int64_t(sizeof(A));
}

template <typename A>
int64_t copy_rows(const Arguments& arguments) {
  return Layout<A>(arguments).rows();
}

template <typename A>
constexpr Kernels table() {
  return {MSDA_ISA_NAME, copy_bytes<A>, copy_rows<A>,        pack<A>,
          unpack<A>,     forward<A>,    backward_samples<A>, backward_value<A>};
}

}  // namespace

extern const Kernels float_kernels, double_kernels;
const Kernels float_kernels = table<float>();
const Kernels double_kernels = table<double>();

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

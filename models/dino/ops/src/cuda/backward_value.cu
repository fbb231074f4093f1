#include "backward_value.cuh"
#include "dispatch.cuh"

namespace msda {

namespace {
struct BackwardValue {
  template <typename T, typename V>
  static auto kernel() {
    return backward_value_kernel<T, V::kVector, V::kGroup>;
  }
  template <typename V>
  static constexpr int threads() {
    return kBinThreads;
  }
  template <typename V>
  static constexpr int tile() {
    return kTileQueries;
  }
  template <typename V>
  static int turns(int) {
    return 1;
  }
};
}  // namespace

cudaError_t cuda_backward_value(const Arguments& arguments, cudaStream_t stream) {
  return dispatch<BackwardValue>(arguments, Workspace{}, stream);
}

}  // namespace msda

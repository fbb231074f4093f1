#include "dispatch.cuh"
#include "forward.cuh"

namespace msda {

namespace {
struct Forward {
  template <typename T, typename V>
  static auto kernel() {
    return forward_kernel<T, V>;
  }
  template <typename V>
  static constexpr int threads() {
    return V::kThreads;
  }
  template <typename V>
  static constexpr int tile() {
    return V::kPairs;
  }
  template <typename V>
  static int turns(int channels) {
    return (channels + V::kGroup * V::kVector - 1) / (V::kGroup * V::kVector);
  }
};
}  // namespace

cudaError_t cuda_forward(const Arguments& arguments, cudaStream_t stream) {
  return dispatch<Forward>(arguments, Workspace{}, stream);
}

}  // namespace msda

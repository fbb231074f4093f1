#include "backward_samples.cuh"
#include "dispatch.cuh"

namespace msda {

namespace {
struct BackwardSamples {
  template <typename T, typename V>
  static auto kernel() {
    return backward_samples_kernel<T, V>;
  }
  template <typename V>
  static constexpr int threads() {
    return V::kThreads;
  }
  template <typename V>
  static constexpr int tile() {
    return V::kPairs;
  }
  // A group walks over all channels: its sums need them all.
  template <typename V>
  static int turns(int) {
    return 1;
  }
};
}  // namespace

bool needs_weight_gradients(const Arguments& arguments) {
  return arguments.form != Form::kLocations && arguments.sizes.samples() > kChunk;
}

cudaError_t cuda_backward_samples(const Arguments& arguments, const Workspace& workspace, cudaStream_t stream) {
  return dispatch<BackwardSamples>(arguments, workspace, stream);
}

}  // namespace msda

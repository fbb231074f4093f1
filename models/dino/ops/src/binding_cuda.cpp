// The operators for tensors on a CUDA device. Everything runs on PyTorch's current stream; nothing waits for it.
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <limits>

#include "cuda/launch.h"
#include "operators.h"

namespace msda {
namespace {

void check(cudaError_t error, const char* what) {
  TORCH_CHECK(error == cudaSuccess, "ms_deform_attn: ", what, " failed: ", cudaGetErrorString(error));
}

// Largest magnitudes, as the deterministic kernel wants them. They never leave the device. Of logits only the largest
// of each softmax counts: -inf beside it is a weight of 0, alone it makes NaN.
Tensor bounds_of(const Tensor& grad_output, const OpInputs& given, bool fused, at::ScalarType type) {
  const double infinity = std::numeric_limits<double>::infinity();
  const auto norm = [&](const Tensor& x) { return at::linalg_vector_norm(x, infinity, {}, false, type); };
  return at::stack({norm(grad_output), norm(fused ? given.attention.amax(-1) : given.attention)});
}

Tensor value_gradient(CheckedCall& call, const Tensor& grad_output, const OpInputs& given, cudaStream_t stream) {
  const auto type = call.working_type();
  const auto options = given.value.options();
  if (!at::globalContext().deterministicAlgorithms()) {
    Tensor sums = at::zeros(given.value.sizes(), options.dtype(type));
    call.arguments.grad_value = sums.mutable_data_ptr();
    check(cuda_backward_value(call.arguments, stream), "the backward kernel of the value");
    return sums.to(given.value.scalar_type());
  }
  Tensor integers = at::zeros(given.value.sizes(), options.dtype(at::kLong));
  Tensor sums = at::empty(given.value.sizes(), options.dtype(type));
  const Tensor bounds = bounds_of(grad_output, given, call.arguments.form != Form::kLocations, type);
  call.arguments.grad_value = sums.mutable_data_ptr();
  const Workspace workspace{nullptr, bounds.const_data_ptr()};
  auto* raw = reinterpret_cast<long long*>(integers.mutable_data_ptr<int64_t>());
  check(cuda_backward_value_deterministic(call.arguments, workspace, raw, stream),
        "the deterministic backward kernel of the value");
  return sums.to(given.value.scalar_type());
}

struct Cuda {
  static Tensor forward(const OpInputs& given) {
    const c10::cuda::CUDAGuard device(given.value.device());
    CheckedCall call(given);
    Tensor output = at::empty(call.output_shape(), given.value.options());
    if (call.empty()) return output;
    call.arguments.output = output.mutable_data_ptr();
    check(cuda_forward(call.arguments, c10::cuda::getCurrentCUDAStream()), "the forward kernel");
    return output;
  }

  static Gradients backward(const Tensor& grad_output, const OpInputs& given, bool pixel_gradients) {
    const c10::cuda::CUDAGuard device(given.value.device());
    CheckedCall call(given);
    call.set_gradient(grad_output);
    const auto type = call.working_type();
    const auto positions_type = pixel_gradients ? type : given.positions.scalar_type();
    Tensor positions = at::empty(given.positions.sizes(), given.positions.options().dtype(positions_type));
    Tensor attention = at::empty(given.attention.sizes(), given.attention.options());
    if (call.empty()) {
      return {at::zeros(given.value.sizes(), given.value.options()), positions.zero_(), attention.zero_()};
    }
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    call.arguments.grad_positions = positions.mutable_data_ptr();
    call.arguments.grad_attention = attention.mutable_data_ptr();
    call.arguments.pixel_gradients = pixel_gradients;
    Tensor weight_gradients = attention;
    if (needs_weight_gradients(call.arguments) && attention.scalar_type() != type) {
      weight_gradients = at::empty(attention.sizes(), attention.options().dtype(type));
    }
    const Workspace workspace{weight_gradients.mutable_data_ptr(), nullptr};
    check(cuda_backward_samples(call.arguments, workspace, stream), "the backward kernel of the samples");
    return {value_gradient(call, grad_output, given, stream), positions, attention};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(richsem, CUDA, library) { Operators<Cuda>::add_to(library); }

}  // namespace msda

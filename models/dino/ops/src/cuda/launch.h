// The CUDA kernels as functions of a call. No PyTorch header here or in any .cu file, so that they compile fast and
// anywhere. All pointers of a call begin at multiples of 16 bytes.
#pragma once

#include <cuda_runtime_api.h>

#include "../common/arguments.h"

namespace msda {

// What a backward pass needs beside its arguments.
struct Workspace {
  void* weight_gradients;  // (B, Q, H, L * P) A; needed when needs_weight_gradients
  const void* bounds;      // (2) A; deterministic mode: largest |grad_output| and |weight|, or |largest logit|
};

// Whether grad_attention cannot hold the sums of the softmax's gradient while they are made.
bool needs_weight_gradients(const Arguments& arguments);

cudaError_t cuda_forward(const Arguments& arguments, cudaStream_t stream);

// Gradients of positions and attention.
cudaError_t cuda_backward_samples(const Arguments& arguments, const Workspace& workspace, cudaStream_t stream);

// Adds the gradient of the value to arguments.grad_value, (B, S, H, C) A, which holds zeros.
cudaError_t cuda_backward_value(const Arguments& arguments, cudaStream_t stream);

// The same with 64-bit integers in `sums`, whose addition does not depend on the order, and from there to
// arguments.grad_value, (B, S, H, C) A.
cudaError_t cuda_backward_value_deterministic(const Arguments& arguments, const Workspace& workspace,
                                              long long* sums, cudaStream_t stream);

}  // namespace msda

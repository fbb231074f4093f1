// The four operators that library.py defines, for one kind of device.
#pragma once

#include <torch/library.h>

#include <tuple>

#include "call.h"

namespace msda {

using Gradients = std::tuple<Tensor, Tensor, Tensor>;

// Device has `Tensor forward(const OpInputs&)` and
// `Gradients backward(const Tensor& grad_output, const OpInputs&, bool pixel_gradients)`.
template <typename Device>
struct Operators {
  static Tensor plain(const Tensor& value, at::IntArrayRef shapes, const Tensor& locations, const Tensor& weights) {
    return Device::forward({value, shapes, locations, weights, std::nullopt, std::nullopt});
  }

  static Gradients plain_backward(const Tensor& grad_output, const Tensor& value, at::IntArrayRef shapes,
                                  const Tensor& locations, const Tensor& weights) {
    return Device::backward(grad_output, {value, shapes, locations, weights, std::nullopt, std::nullopt}, false);
  }

  static Tensor fused(const Tensor& value, at::IntArrayRef shapes, const Tensor& offsets, const Tensor& logits,
                      const Tensor& reference_points, const std::optional<Tensor>& padding_mask) {
    return Device::forward({value, shapes, offsets, logits, reference_points, padding_mask});
  }

  static Gradients fused_backward(const Tensor& grad_output, const Tensor& value, at::IntArrayRef shapes,
                                  const Tensor& offsets, const Tensor& logits, const Tensor& reference_points,
                                  const std::optional<Tensor>& padding_mask, bool pixel_gradients) {
    return Device::backward(grad_output, {value, shapes, offsets, logits, reference_points, padding_mask},
                            pixel_gradients);
  }

  static void add_to(torch::Library& library) {
    library.impl("ms_deform_attn", plain);
    library.impl("ms_deform_attn_backward", plain_backward);
    library.impl("ms_deform_attn_fused", fused);
    library.impl("ms_deform_attn_fused_backward", fused_backward);
  }
};

}  // namespace msda

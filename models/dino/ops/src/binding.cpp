// The kernels behind the operators that library.py defines, for tensors on the CPU.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <tuple>

#include "call.h"
#include "cpu/driver.h"

namespace msda {
namespace {

using Gradients = std::tuple<Tensor, Tensor, Tensor>;

// The CPU walk zeroes masked values as it copies them; most masks are empty and cost nothing then.
void drop_empty_mask(Arguments& arguments) {
  const bool* mask = arguments.mask;
  if (mask && !std::any_of(mask, mask + arguments.sizes.batch * arguments.sizes.tokens, [](bool m) { return m; })) {
    arguments.mask = nullptr;
  }
}

Tensor run_forward(const Given& given) {
  Call call(given);
  const Sizes& s = call.arguments.sizes;
  Tensor output = at::empty({s.batch, s.queries, int64_t(s.heads) * s.channels}, given.value.options());
  if (call.empty()) return output;
  drop_empty_mask(call.arguments);
  call.arguments.output = output.mutable_data_ptr();
  cpu_forward(call.arguments);
  return output;
}

Gradients run_backward(const Tensor& grad_output, const Given& given, bool pixel_gradients) {
  Call call(given);
  call.set_gradient(grad_output);
  const auto contiguous = at::MemoryFormat::Contiguous;
  const auto working = given.value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto positions_type = pixel_gradients ? working : given.positions.scalar_type();
  Tensor value = at::empty_like(given.value, contiguous);
  Tensor positions = at::empty(given.positions.sizes(), given.positions.options().dtype(positions_type));
  Tensor attention = at::empty_like(given.attention, contiguous);
  if (call.empty()) return {value.zero_(), positions.zero_(), attention.zero_()};
  drop_empty_mask(call.arguments);
  call.arguments.grad_value = value.mutable_data_ptr();
  call.arguments.grad_positions = positions.mutable_data_ptr();
  call.arguments.grad_attention = attention.mutable_data_ptr();
  call.arguments.pixel_gradients = pixel_gradients;
  cpu_backward(call.arguments);
  return {value, positions, attention};
}

Tensor forward(const Tensor& value, at::IntArrayRef shapes, const Tensor& locations, const Tensor& weights) {
  return run_forward({value, shapes, locations, weights, std::nullopt, std::nullopt});
}

Gradients backward(const Tensor& grad_output, const Tensor& value, at::IntArrayRef shapes, const Tensor& locations,
                   const Tensor& weights) {
  return run_backward(grad_output, {value, shapes, locations, weights, std::nullopt, std::nullopt}, false);
}

Tensor fused_forward(const Tensor& value, at::IntArrayRef shapes, const Tensor& offsets, const Tensor& logits,
                     const Tensor& reference_points, const std::optional<Tensor>& padding_mask) {
  return run_forward({value, shapes, offsets, logits, reference_points, padding_mask});
}

Gradients fused_backward(const Tensor& grad_output, const Tensor& value, at::IntArrayRef shapes,
                         const Tensor& offsets, const Tensor& logits, const Tensor& reference_points,
                         const std::optional<Tensor>& padding_mask, bool pixel_gradients) {
  return run_backward(grad_output, {value, shapes, offsets, logits, reference_points, padding_mask},
                      pixel_gradients);
}

}  // namespace

TORCH_LIBRARY_IMPL(richsem, CPU, library) {
  library.impl("ms_deform_attn", forward);
  library.impl("ms_deform_attn_backward", backward);
  library.impl("ms_deform_attn_fused", fused_forward);
  library.impl("ms_deform_attn_fused_backward", fused_backward);
}

}  // namespace msda

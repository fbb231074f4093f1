// The operators for tensors on the CPU.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "cpu/driver.h"
#include "operators.h"

namespace msda {
namespace {

// Masked values are zeroed while they are copied; a mask without any, the usual one, then costs nothing.
void drop_empty_mask(Arguments& arguments) {
  const bool* mask = arguments.mask;
  if (mask && !std::any_of(mask, mask + arguments.sizes.batch * arguments.sizes.tokens, [](bool m) { return m; })) {
    arguments.mask = nullptr;
  }
}

struct Cpu {
  static Tensor forward(const OpInputs& given) {
    CheckedCall call(given);
    Tensor output = at::empty(call.output_shape(), given.value.options());
    if (call.empty()) return output;
    drop_empty_mask(call.arguments);
    call.arguments.output = output.mutable_data_ptr();
    cpu_forward(call.arguments);
    return output;
  }

  static Gradients backward(const Tensor& grad_output, const OpInputs& given, bool pixel_gradients) {
    CheckedCall call(given);
    call.set_gradient(grad_output);
    const auto positions_type = pixel_gradients ? call.working_type() : given.positions.scalar_type();
    Tensor value = at::empty(given.value.sizes(), given.value.options());
    Tensor positions = at::empty(given.positions.sizes(), given.positions.options().dtype(positions_type));
    Tensor attention = at::empty(given.attention.sizes(), given.attention.options());
    if (call.empty()) return {value.zero_(), positions.zero_(), attention.zero_()};
    drop_empty_mask(call.arguments);
    call.arguments.grad_value = value.mutable_data_ptr();
    call.arguments.grad_positions = positions.mutable_data_ptr();
    call.arguments.grad_attention = attention.mutable_data_ptr();
    call.arguments.pixel_gradients = pixel_gradients;
    cpu_backward(call.arguments);
    return {value, positions, attention};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(richsem, CPU, library) { Operators<Cpu>::add_to(library); }

}  // namespace msda

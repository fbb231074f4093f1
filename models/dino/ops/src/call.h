// From tensors to a call as plain data. Every complaint names the argument.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/clone.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "common/arguments.h"

namespace msda {

using at::Tensor;

inline Number number_of(const Tensor& value) {
  const auto type = value.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16,
                   "ms_deform_attn: value must be floating, not ", type);
  return type == at::kFloat ? Number::kFloat
         : type == at::kDouble ? Number::kDouble
         : type == at::kHalf ? Number::kHalf
                             : Number::kBFloat16;
}

// Contiguous, and beginning where a vector register or a 16-byte load may begin.
inline Tensor contiguous_aligned(const Tensor& tensor) {
  Tensor result = tensor.contiguous();
  return reinterpret_cast<uintptr_t>(result.const_data_ptr()) % 16 ? result.clone() : result;
}

inline Tensor checked(const char* name, const Tensor& tensor, at::IntArrayRef shape, at::ScalarType type,
                      const Tensor& value) {
  TORCH_CHECK_VALUE(tensor.device() == value.device(), "ms_deform_attn: ", name, " is on ", tensor.device(),
                    " but value is on ", value.device());
  TORCH_CHECK_TYPE(tensor.scalar_type() == type, "ms_deform_attn: ", name, " must be ", type, ", not ",
                   tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.sizes() == shape, "ms_deform_attn: ", name, " must be ", shape, ", not ",
                    tensor.sizes());
  return contiguous_aligned(tensor);
}

// What the Python side hands over; reference and mask belong to the fused form.
struct OpInputs {
  const Tensor& value;
  at::IntArrayRef shapes;  // height and width of each level in turn
  const Tensor& positions;
  const Tensor& attention;
  std::optional<Tensor> reference;
  std::optional<Tensor> mask;
};

// Owns what `arguments` points to.
class CheckedCall {
 public:
  explicit CheckedCall(const OpInputs& given) {
    const Tensor& value = given.value;
    const bool fused = given.reference.has_value();
    TORCH_CHECK_VALUE(value.dim() == 4, "ms_deform_attn: value must be (B, S, H, C), not ", value.sizes());
    const char* positions = fused ? "offsets" : "locations";
    TORCH_CHECK_VALUE(given.positions.dim() == 6, "ms_deform_attn: ", positions,
                      " must be (B, Q, H, L, P, 2), not ", given.positions.sizes());
    arguments.number = number_of(value);
    value_ = contiguous_aligned(value);
    set_levels(given.shapes, value.size(1));
    const int64_t batch = value.size(0), queries = given.positions.size(1), heads = value.size(2);
    const int64_t levels = int64_t(levels_.size()), points = given.positions.size(4);
    TORCH_CHECK_VALUE(points > 0, "ms_deform_attn: ", positions, " must hold at least one point");
    const auto working = working_type(), type = fused ? value.scalar_type() : working;
    positions_ = checked(positions, given.positions, {batch, queries, heads, levels, points, 2}, type, value);
    if (fused) {
      const int64_t columns = given.reference->size(-1) == 4 ? 4 : 2;
      arguments.form = columns == 4 ? Form::kBoxes : Form::kPoints;
      attention_ = checked("logits", given.attention, {batch, queries, heads, levels * points}, type, value);
      reference_ =
          checked("reference_points", *given.reference, {batch, queries, levels, columns}, working, value);
    } else {
      arguments.form = Form::kLocations;
      attention_ = checked("weights", given.attention, {batch, queries, heads, levels, points}, type, value);
    }
    if (given.mask) mask_ = checked("padding_mask", *given.mask, {batch, value.size(1)}, at::kBool, value);
    TORCH_CHECK_VALUE(!value.is_cuda() || levels <= kMostLevels, "ms_deform_attn: more than ", kMostLevels,
                      " levels on a CUDA device");
    // What kernels count with 32 bits; level_of on CUDA devices divides floats.
    TORCH_CHECK_VALUE(queries < (int64_t(1) << 31), "ms_deform_attn: ", positions, " hold 2^31 queries or more");
    TORCH_CHECK_VALUE(points < (int64_t(1) << 22) / levels, "ms_deform_attn: ", positions,
                      " hold 2^22 points per query and head, or more");
    TORCH_CHECK_VALUE(std::max(heads, value.size(3)) < (int64_t(1) << 31), "ms_deform_attn: value ", value.sizes(),
                      " holds 2^31 heads or channels, or more");
    arguments.sizes = {batch, value.size(1), queries, int32_t(heads), int32_t(value.size(3)), int32_t(levels),
                       int32_t(points)};
    arguments.levels = levels_.data();
    arguments.value = value_.const_data_ptr();
    arguments.positions = positions_.const_data_ptr();
    arguments.attention = attention_.const_data_ptr();
    arguments.reference = fused ? reference_.const_data_ptr() : nullptr;
    arguments.mask = given.mask ? mask_.const_data_ptr<bool>() : nullptr;
  }

  void set_gradient(const Tensor& gradient) {
    gradient_ = checked("grad_output", gradient, output_shape(), value_.scalar_type(), value_);
    arguments.grad_output = gradient_.const_data_ptr();
  }

  // Of locations, weights, reference points and sums.
  at::ScalarType working_type() const { return value_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

  std::vector<int64_t> output_shape() const {
    const Sizes& s = arguments.sizes;
    return {s.batch, s.queries, int64_t(s.heads) * s.channels};
  }

  bool empty() const {
    const Sizes& s = arguments.sizes;
    return s.batch == 0 || s.queries == 0 || s.heads == 0 || s.channels == 0;
  }

  Arguments arguments{};

 private:
  void set_levels(at::IntArrayRef shapes, int64_t tokens) {
    TORCH_CHECK_VALUE(!shapes.empty() && shapes.size() % 2 == 0,
                      "ms_deform_attn: shapes must hold a height and a width for every level");
    int64_t start = 0;
    for (size_t i = 0; i < shapes.size(); i += 2) {
      TORCH_CHECK_VALUE(shapes[i] >= 0 && shapes[i + 1] >= 0, "ms_deform_attn: shapes must not be negative");
      levels_.push_back({int32_t(shapes[i]), int32_t(shapes[i + 1]), int32_t(start)});
      start += shapes[i] * shapes[i + 1];
      TORCH_CHECK_VALUE(start < (int64_t(1) << 31), "ms_deform_attn: shapes hold more than 2^31 pixels");
    }
    TORCH_CHECK_VALUE(start == tokens, "ms_deform_attn: shapes hold ", start, " pixels but value has S = ", tokens,
                      " tokens");
  }

  std::vector<Level> levels_;
  Tensor value_, positions_, attention_, reference_, mask_, gradient_;
};

}  // namespace msda

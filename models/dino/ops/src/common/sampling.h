// The arithmetic of one sample: where it falls, what its four pixels weigh, what its gradients are.
// Compiled by the host compiler for the CPU kernels and by nvcc for the CUDA kernels; free of branches, so
// that a loop over samples vectorises.
#pragma once

#include "arguments.h"

namespace msda {

// Pixel coordinates put the centre of pixel i at i.
template <typename A>
MSDA_HD A pixel_of_location(A location, A size) {
  return location * size - A(0.5);
}

template <typename A>
MSDA_HD A pixel_of_point(A reference, A offset, A size) {
  return reference * size + offset - A(0.5);
}

// `unit` is 0.5 / points.
template <typename A>
MSDA_HD A pixel_of_box(A centre, A extent, A offset, A unit, A size) {
  return (centre + offset * unit * extent) * size - A(0.5);
}

// Whether any of the four pixels around (x, y) lies in the map. False for NaN and infinities, so that only
// small finite numbers are ever turned into an integer.
template <typename A>
MSDA_HD bool touches(A x, A y, A width, A height) {
  return (x > A(-1)) & (x < width) & (y > A(-1)) & (y < height);
}

// The largest integer not above `pixel`, which must be small and finite.
template <typename A>
MSDA_HD int32_t floor_of(A pixel) {
  const int32_t whole = static_cast<int32_t>(pixel);
  return whole - (A(whole) > pixel ? 1 : 0);
}

// Corners in this order everywhere: (x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1).
constexpr int kCorners = 4;

template <typename A>
MSDA_HD A corner_weight(int corner, A fx, A fy) {
  return (corner & 1 ? fx : A(1) - fx) * (corner & 2 ? fy : A(1) - fy);
}

// Gradients of a sample from the four products d = dot(gradient of the output, value of the corner).
template <typename A>
MSDA_HD A weight_gradient(A d0, A d1, A d2, A d3, A fx, A fy) {
  const A top = d0 + fx * (d1 - d0);
  const A bottom = d2 + fx * (d3 - d2);
  return top + fy * (bottom - top);
}

template <typename A>
MSDA_HD A x_gradient(A d0, A d1, A d2, A d3, A fy, A weight) {
  return weight * ((d1 - d0) + fy * ((d3 - d2) - (d1 - d0)));
}

template <typename A>
MSDA_HD A y_gradient(A d0, A d1, A d2, A d3, A fx, A weight) {
  return weight * ((d2 - d0) + fx * ((d3 - d1) - (d2 - d0)));
}

// What a gradient with respect to the pixel is worth with respect to the given position.
template <typename A>
MSDA_HD A location_scale(A size) {
  return size;
}

template <typename A>
MSDA_HD A box_scale(A extent, A unit, A size) {
  return extent * unit * size;
}

// Gradient of a softmax's logit; `mean` is the sum of weight * gradient over the softmax.
template <typename A>
MSDA_HD A logit_gradient(A weight, A gradient, A mean) {
  return weight * (gradient - mean);
}

}  // namespace msda

// The forward pass over a range of cells.
#pragma once

#include "cells.h"
#include "sampler.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {

// Weighted sum of all samples of a cell over `vectors` vectors of channels. Left and right corners are summed
// apart: one chain of additions would wait for itself.
template <typename A, int vectors>
inline void forward_tile(const Sampler<A>& sampler, const A* copy, int stride, A* output) {
  constexpr int width = kWidth<A>;
  vector_t<A> left[vectors] = {}, right[vectors] = {};
  for (int i = 0; i < sampler.blocks(); ++i) {
    const Block<A>& block = sampler.block(i);
    const Table<A>& table = sampler.table(i);
    alignas(64) A weight[kCorners][kLanes];
    for (int corner = 0; corner < kCorners; ++corner) {
      for (int k = 0; k < kLanes; ++k) {
        weight[corner][k] = block.attention[k] * corner_weight(corner, block.fx[k], block.fy[k]);
      }
    }
    for (int k = 0; k < table.count; ++k) {
      const A* upper = copy + int64_t(block.pixel[k]) * stride;
      const A* lower = upper + int64_t(table.pitch[k]) * stride;
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        left[v] += weight[0][k] * load(upper + v * width);
        right[v] += weight[1][k] * load(upper + stride + v * width);
        left[v] += weight[2][k] * load(lower + v * width);
        right[v] += weight[3][k] * load(lower + stride + v * width);
      }
    }
  }
  for (int v = 0; v < vectors; ++v) store(output + v * width, left[v] + right[v]);
}

template <typename A>
void forward(const Arguments& arguments, const Group& group, int64_t begin, int64_t end) {
  constexpr int width = kWidth<A>;
  const Sizes& s = arguments.sizes;
  const Layout<A> layout(arguments);
  const int stride = layout.stride();
  Sampler<A> sampler(arguments, layout);
  std::vector<A> output(stride);
  for (int64_t i = begin; i < end; ++i) {
    const Cell<A> cell(arguments, group, layout, i / s.queries, i % s.queries);
    sampler.prepare(cell.batch, cell.query, cell.head);
    const int64_t ahead = cell.index + kAhead * s.heads;
    prefetch_to_write(arguments.number, arguments.output, ahead * s.channels, s.channels);
    int c = 0;
    for (; c + 4 * width <= stride; c += 4 * width) forward_tile<A, 4>(sampler, cell.copy + c, stride, &output[c]);
    for (; c + 2 * width <= stride; c += 2 * width) forward_tile<A, 2>(sampler, cell.copy + c, stride, &output[c]);
    for (; c < stride; c += width) forward_tile<A, 1>(sampler, cell.copy + c, stride, &output[c]);
    write(arguments.number, arguments.output, cell.index * s.channels, s.channels, output.data());
  }
}

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

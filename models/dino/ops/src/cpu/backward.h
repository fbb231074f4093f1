// The backward pass in two walks over the cells: gradients of positions and attention gather from the value,
// the gradient of the value scatters. No two threads ever write the same number.
#pragma once

#include <algorithm>

#include "cells.h"
#include "sampler.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {

// The gradient of one cell's output; the numbers behind its channels are not touched.
template <typename A>
inline void read_gradient(const Arguments& arguments, int64_t cell, A* out) {
  const int64_t channels = arguments.sizes.channels;
  prefetch(arguments.number, arguments.grad_output, (cell + kAhead * arguments.sizes.heads) * channels, channels);
  read(arguments.number, arguments.grad_output, cell * channels, channels, out);
}

// dot(gradient, corner) of every lane and corner over a tile of channels, written to `products` by the first tile
// and added by the others. A product is left as the vector whose elements sum to it.
template <typename A, int vectors, bool first>
inline void dot_tile(const Block<A>& block, const Table<A>& table, const A* copy, int stride, const A* gradient,
                     A (*products)[kLanes][kWidth<A>]) {
  constexpr int width = kWidth<A>;
  vector_t<A> g[vectors];
  for (int v = 0; v < vectors; ++v) g[v] = load(gradient + v * width);
  for (int k = 0; k < table.count; ++k) {
    const A* row = copy + int64_t(block.pixel[k]) * stride;
#pragma GCC unroll 2
    for (int y = 0; y < 2; ++y) {
      vector_t<A> left = {}, right = {};
      if (!first) left = load(products[2 * y][k]), right = load(products[2 * y + 1][k]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        left += g[v] * load(row + v * width);
        right += g[v] * load(row + stride + v * width);
      }
      store(products[2 * y][k], left);
      store(products[2 * y + 1][k], right);
      row += int64_t(table.pitch[k]) * stride;
    }
  }
}

// Gradients of a block's weights and pixels.
template <typename A>
struct alignas(64) Gradients {
  A weight[kLanes], x[kLanes], y[kLanes];
};

template <typename A>
inline void block_gradients(const Block<A>& block, const Table<A>& table, const A* copy, int stride,
                            const A* gradient, Gradients<A>& out) {
  constexpr int width = kWidth<A>;
  alignas(64) A products[kCorners][kLanes][width];
  int c = std::min(stride, 2 * width);
  if (c == 2 * width) {
    dot_tile<A, 2, true>(block, table, copy, stride, gradient, products);
  } else {
    dot_tile<A, 1, true>(block, table, copy, stride, gradient, products);
  }
  for (; c + 2 * width <= stride; c += 2 * width) {
    dot_tile<A, 2, false>(block, table, copy + c, stride, gradient + c, products);
  }
  for (; c < stride; c += width) dot_tile<A, 1, false>(block, table, copy + c, stride, gradient + c, products);
  alignas(64) A dot[kCorners][kLanes];
  for (int corner = 0; corner < kCorners; ++corner) {
    for (int k = 0; k < kLanes; k += width) row_sums<A>(products[corner] + k, dot[corner] + k);
  }
  for (int k = 0; k < kLanes; ++k) {
    const A fx = block.fx[k], fy = block.fy[k], attention = block.attention[k];
    const A d0 = dot[0][k], d1 = dot[1][k], d2 = dot[2][k], d3 = dot[3][k];
    out.weight[k] = weight_gradient(d0, d1, d2, d3, fx, fy);
    out.x[k] = x_gradient(d0, d1, d2, d3, fy, attention);
    out.y[k] = y_gradient(d0, d1, d2, d3, fx, attention);
  }
}

// From gradients of weights and pixels to those of what was given: logits, locations, offsets.
template <typename A>
inline void finish_gradients(const Arguments& arguments, const Sampler<A>& sampler, const A* reference,
                             std::vector<Gradients<A>>& gradients) {
  if (arguments.form != Form::kLocations) {
    A mean = 0;
    for (int i = 0; i < sampler.blocks(); ++i) {
      for (int k = 0; k < sampler.table(i).count; ++k) {
        mean += sampler.block(i).attention[k] * gradients[i].weight[k];
      }
    }
    for (int i = 0; i < sampler.blocks(); ++i) {
      A* g = gradients[i].weight;
      for (int k = 0; k < kLanes; ++k) g[k] = logit_gradient(sampler.block(i).attention[k], g[k], mean);
    }
  }
  if (arguments.pixel_gradients || arguments.form == Form::kPoints) return;
  for (int i = 0; i < sampler.blocks(); ++i) {
    const Table<A>& table = sampler.table(i);
    Gradients<A>& g = gradients[i];
    for (int k = 0; k < table.count; ++k) {
      if (arguments.form == Form::kLocations) {
        g.x[k] *= location_scale(table.width[k]);
        g.y[k] *= location_scale(table.height[k]);
      } else {
        g.x[k] *= box_scale(reference[table.level[k] * 4 + 2], sampler.unit(), table.width[k]);
        g.y[k] *= box_scale(reference[table.level[k] * 4 + 3], sampler.unit(), table.height[k]);
      }
    }
  }
}

template <typename A>
void backward_samples(const Arguments& arguments, const Group& group, int64_t begin, int64_t end) {
  const Sizes& s = arguments.sizes;
  const Layout<A> layout(arguments);
  const int stride = layout.stride();
  Sampler<A> sampler(arguments, layout);
  std::vector<A> gradient(stride);
  std::vector<Gradients<A>> gradients(sampler.blocks());
  const Number positions = arguments.pixel_gradients ? arguments.working() : arguments.given();
  for (int64_t index = begin; index < end; ++index) {
    const Cell<A> cell(arguments, group, layout, index / s.queries, index % s.queries);
    sampler.prepare(cell.batch, cell.query, cell.head);
    read_gradient(arguments, cell.index, gradient.data());
    const int64_t ahead = (cell.index + kAhead * s.heads) * s.samples();
    prefetch_to_write(positions, arguments.grad_positions, 2 * ahead, 2 * s.samples());
    prefetch_to_write(arguments.given(), arguments.grad_attention, ahead, s.samples());
    for (int i = 0; i < sampler.blocks(); ++i) {
      block_gradients(sampler.block(i), sampler.table(i), cell.copy, stride, gradient.data(), gradients[i]);
    }
    finish_gradients(arguments, sampler, sampler.reference_of(cell.batch, cell.query), gradients);
    for (int i = 0; i < sampler.blocks(); ++i) {
      const int count = sampler.table(i).count;
      const int64_t first = cell.index * s.samples() + i * kLanes;
      alignas(64) A xy[2 * kLanes];
      for (int k = 0; k < kLanes; ++k) xy[2 * k] = gradients[i].x[k], xy[2 * k + 1] = gradients[i].y[k];
      write(positions, arguments.grad_positions, 2 * first, 2 * count, xy);
      write(arguments.given(), arguments.grad_attention, first, count, gradients[i].weight);
    }
  }
}

// Adds the share of lanes [from, to) to the working copy of the gradient. The border takes what falls outside and
// is never read.
template <typename A, int vectors>
inline void scatter_tile(const Block<A>& block, const Table<A>& table, int from, int to, A* copy, int stride,
                         const A* gradient) {
  constexpr int width = kWidth<A>;
  vector_t<A> g[vectors];
  for (int v = 0; v < vectors; ++v) g[v] = load(gradient + v * width);
  for (int k = from; k < to; ++k) {
    A* row = copy + int64_t(block.pixel[k]) * stride;
    const A fx = block.fx[k], fy = block.fy[k], attention = block.attention[k];
#pragma GCC unroll 2
    for (int y = 0; y < 2; ++y) {
      const A left = attention * corner_weight(2 * y, fx, fy), right = attention * corner_weight(2 * y + 1, fx, fy);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        A* a = row + v * width;
        A* b = row + stride + v * width;
        store(a, load(a) + left * g[v]);
        store(b, load(b) + right * g[v]);
      }
      row += int64_t(table.pitch[k]) * stride;
    }
  }
}

// All queries' share in levels [first, last) of one slot.
template <typename A>
void scatter_levels(const Arguments& arguments, const Group& group, const Layout<A>& layout, Sampler<A>& sampler,
                    int64_t slot, int first, int last) {
  constexpr int width = kWidth<A>;
  const Sizes& s = arguments.sizes;
  const int stride = layout.stride(), begin = first * s.points, end = last * s.points;
  std::vector<A> gradient(stride);
  A* copy = static_cast<A*>(group.copies) + slot * layout.numbers();
  zero(copy + layout.level(first).begin * stride,
       (layout.level(last - 1).end - layout.level(first).begin) * stride);
  for (int64_t query = 0; query < s.queries; ++query) {
    const Cell<A> cell(arguments, group, layout, slot, query);
    sampler.prepare(cell.batch, cell.query, cell.head);
    read_gradient(arguments, cell.index, gradient.data());
    for (int i = begin / kLanes; i * kLanes < end; ++i) {
      const Block<A>& block = sampler.block(i);
      const Table<A>& table = sampler.table(i);
      const int from = std::max(begin - i * kLanes, 0), to = std::min(end - i * kLanes, kLanes);
      int c = 0;
      for (; c + 2 * width <= stride; c += 2 * width) {
        scatter_tile<A, 2>(block, table, from, to, copy + c, stride, &gradient[c]);
      }
      for (; c < stride; c += width) scatter_tile<A, 1>(block, table, from, to, copy + c, stride, &gradient[c]);
    }
  }
}

// Tasks count (slot, level); the levels of one slot that fall to one thread are walked together.
template <typename A>
void backward_value(const Arguments& arguments, const Group& group, int64_t begin, int64_t end) {
  const int levels = arguments.sizes.levels;
  const Layout<A> layout(arguments);
  Sampler<A> sampler(arguments, layout);
  for (int64_t task = begin; task < end;) {
    const int first = int(task % levels);
    const int last = int(std::min<int64_t>(levels, first + (end - task)));
    scatter_levels(arguments, group, layout, sampler, task / levels, first, last);
    task += last - first;
  }
}

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

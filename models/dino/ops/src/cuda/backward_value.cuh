// Gradient of the value. A block takes a tile of queries of one head and goes through the levels, four points at a
// time: one sample per thread. The samples are sorted by pixel (bins.cuh); then a group of lanes owns a pixel, sums
// on chip what its samples bring, and adds the sum to memory once. On coarse levels, where hundreds of samples
// meet in a pixel, that is most of the work.
#pragma once

#include "atomics.cuh"
#include "bins.cuh"
#include "variants.h"

namespace msda {

constexpr int kTileQueries = 64;
constexpr int kPointsAtOnce = kBinSamples / kTileQueries;

template <typename A>
struct ValueTile {
  Bins bins;
  Four<A> weights[kBinSamples];  // of the corners; 0 where there is nothing to add
  int32_t x[kBinSamples], y[kBinSamples];
  int64_t row[kTileQueries];  // in (B, Q, H) of each query; -1: no query
  Softmax<A> softmax[kTileQueries];
};

// Four lanes per query.
template <typename T>
__device__ __forceinline__ void prepare_queries(const Params& p, ValueTile<accumulator_t<T>>& tile) {
  constexpr int kLanes = kBinThreads / kTileQueries;
  const int place = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const Cell cell = cell_of(p, place, kTileQueries);
  const Softmax<accumulator_t<T>> softmax = softmax_of<T, kLanes>(p, cell, lane);
  if (lane == 0) {
    tile.row[place] = cell.valid() ? cell.index(p) : -1;
    tile.softmax[place] = softmax;
  }
  __syncthreads();
}

// The thread's own sample: point `point` of level l. Returns whether it adds anything.
template <typename T>
__device__ __forceinline__ bool prepare_sample(const Params& p, ValueTile<accumulator_t<T>>& tile, int32_t l,
                                               int32_t point) {
  using A = accumulator_t<T>;
  const int place = threadIdx.x / kPointsAtOnce;
  Four<A> weights = {};
  bool live = false;
  if (tile.row[place] >= 0 && point < p.sizes.points) {
    const Cell cell = cell_of(p, place, kTileQueries);
    const int32_t k = l * p.sizes.points + point;
    const Corners<A> c = corners_of(p, cell.batch, l, read_pixel<T>(p, cell, k, l));
    const A attention = weight_of<T>(p, tile.row[place] * p.sizes.samples() + k, tile.softmax[place]);
    live = c.inside;
#pragma unroll
    for (int i = 0; i < kCorners; ++i) {
      weights.x[i] = c.inside >> i & 1u ? attention * corner_weight(i, c.fx, c.fy) : A(0);
    }
    tile.x[threadIdx.x] = c.x;
    tile.y[threadIdx.x] = c.y;
  }
  tile.weights[threadIdx.x] = weights;
  return live;
}

// The gradient of the output of a sample's query, one lane's channels.
template <typename T, int kVector>
__device__ __forceinline__ Pack<accumulator_t<T>, kVector> gradient_of(const Params& p, int64_t row, int32_t vector) {
  return load<T, kVector>(static_cast<const T*>(p.grad_output) + row * p.sizes.channels + vector * kVector);
}

template <typename A>
__device__ __forceinline__ A* sum_of(const Params& p, const Cell& cell, const Level& level, int32_t x, int32_t y) {
  const int64_t token = cell.batch * p.sizes.tokens + level.start + int64_t(y) * level.width + x;
  return static_cast<A*>(p.grad_value) + (token * p.sizes.heads + cell.head) * p.sizes.channels;
}

// Pixels of the window, each by one group of lanes.
template <typename T, int kVector, int kGroup>
__device__ __forceinline__ void add_pixels(const Params& p, const ValueTile<accumulator_t<T>>& tile, const Cell& cell,
                                           const Level& level, const Window& window) {
  using A = accumulator_t<T>;
  const Bins& bins = tile.bins;
  const int lane = threadIdx.x % kGroup, vectors = p.sizes.channels / kVector;
  const int32_t columns = bins.right - bins.left + 2, rows = bins.bottom - bins.top + 2;
  if (bins.right < 0) return;
  for (int i = threadIdx.x / kGroup; i < columns * rows; i += kBinThreads / kGroup) {
    const int32_t cx = bins.left + i % columns, cy = bins.top + i / columns;
    const int32_t x = window.x + cx, y = window.y + cy;
    if (x < 0 || y < 0 || x >= level.width || y >= level.height) continue;
    for (int vector = lane; vector < vectors; vector += kGroup) {
      A total[kVector] = {};
      bool some = false;
#pragma unroll 1
      for (int corner = 0; corner < kCorners; ++corner) {
        const int32_t from = window.cell(cx - (corner & 1), cy - (corner >> 1));
        if (from < 0) continue;
        const int32_t end = bins.start[from + 1];
        for (int32_t j = bins.start[from]; j < end; ++j) {
          const int sample = bins.order[j];
          const A weight = tile.weights[sample].x[corner];
          // Not only to save work: 0 times an infinite gradient would leave NaN in a masked pixel.
          if (weight == A(0)) continue;
          const Pack<A, kVector> g = gradient_of<T, kVector>(p, tile.row[sample / kPointsAtOnce], vector);
#pragma unroll
          for (int n = 0; n < kVector; ++n) total[n] += weight * g.x[n];
          some = true;
        }
      }
      if (some) add(sum_of<A>(p, cell, level, x, y) + vector * kVector, total);
    }
  }
}

// Samples beside the window, one by one.
template <typename T, int kVector, int kGroup>
__device__ __forceinline__ void add_outside(const Params& p, const ValueTile<accumulator_t<T>>& tile, const Cell& cell,
                                            const Level& level) {
  using A = accumulator_t<T>;
  const int lane = threadIdx.x % kGroup, vectors = p.sizes.channels / kVector;
  for (int i = threadIdx.x / kGroup; i < tile.bins.outside_count; i += kBinThreads / kGroup) {
    const int sample = tile.bins.outside[i];
    const Four<A> weights = tile.weights[sample];
    for (int vector = lane; vector < vectors; vector += kGroup) {
      const Pack<A, kVector> g = gradient_of<T, kVector>(p, tile.row[sample / kPointsAtOnce], vector);
#pragma unroll
      for (int corner = 0; corner < kCorners; ++corner) {
        if (weights.x[corner] == A(0)) continue;
        A x[kVector];
#pragma unroll
        for (int n = 0; n < kVector; ++n) x[n] = weights.x[corner] * g.x[n];
        add(sum_of<A>(p, cell, level, tile.x[sample] + (corner & 1), tile.y[sample] + (corner >> 1)) +
                vector * kVector,
            x);
      }
    }
  }
}

template <typename T, int kVector, int kGroup>
__global__ void __launch_bounds__(kBinThreads, 3) backward_value_kernel(const __grid_constant__ Params p) {
  __shared__ ValueTile<accumulator_t<T>> tile;
  prepare_queries<T>(p, tile);
  const Cell cell = cell_of(p, 0, kTileQueries);
  for (int32_t l = 0; l < p.sizes.levels; ++l) {
    const Level& level = p.levels[l];
    for (int32_t first = 0; first < p.sizes.points; first += kPointsAtOnce) {
      reset(tile.bins);
      const bool live = prepare_sample<T>(p, tile, l, first + threadIdx.x % kPointsAtOnce);
      const int32_t x = live ? tile.x[threadIdx.x] : 0, y = live ? tile.y[threadIdx.x] : 0;
      const Window window = place_window(tile.bins, level, live, x, y);
      sort(tile.bins, window, live, x, y);
      add_pixels<T, kVector, kGroup>(p, tile, cell, level, window);
      add_outside<T, kVector, kGroup>(p, tile, cell, level);
      __syncthreads();
    }
  }
}

}  // namespace msda

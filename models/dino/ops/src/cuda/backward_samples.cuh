// Gradients of positions and attention. As in the forward kernel a group of lanes serves one query and head: it
// shares the work on the samples, walks over them with its channels, and shares the work again to finish.
#pragma once

#include "samples.cuh"
#include "variants.h"

namespace msda {

// Sums d over the lanes of a group and leaves the sum of corner `corner_of_lane` in d[0], for a group of two also
// that of the next corner in d[1]. Every step halves what a lane holds, so a sum of four takes three exchanges
// and not eight.
template <int kGroup, typename A>
__device__ __forceinline__ void reduce_corners(A (&d)[kCorners], int lane) {
  const bool lower = lane & 1;
  const A give0 = lower ? d[0] : d[2], give1 = lower ? d[1] : d[3];
  A keep0 = lower ? d[2] : d[0], keep1 = lower ? d[3] : d[1];
  keep0 += __shfl_xor_sync(kAllLanes, give0, 1);
  keep1 += __shfl_xor_sync(kAllLanes, give1, 1);
  d[0] = keep0;
  d[1] = keep1;
  if constexpr (kGroup > 2) {
    const bool right = lane & 2;
    const A give = right ? keep0 : keep1;
    d[0] = (right ? keep1 : keep0) + __shfl_xor_sync(kAllLanes, give, 2);
#pragma unroll
    for (int step = 4; step < kGroup; step *= 2) d[0] += __shfl_xor_sync(kAllLanes, d[0], step);
  }
}

__device__ __forceinline__ int corner_of_lane(int lane) { return (lane & 1) * 2 + (lane >> 1 & 1); }

template <typename T>
__device__ __forceinline__ void write_given(const Params& p, void* array, int64_t index, accumulator_t<T> x,
                                            bool precise) {
  if (precise || p.form == Form::kLocations) {
    static_cast<accumulator_t<T>*>(array)[index] = x;
  } else {
    assign(static_cast<T*>(array)[index], x);
  }
}

// Two numbers in one access.
template <typename T>
__device__ __forceinline__ void write_position(const Params& p, int64_t index, accumulator_t<T> x,
                                               accumulator_t<T> y) {
  using A = accumulator_t<T>;
  const A xy[2] = {x, y};
  if (p.pixel_gradients || p.form == Form::kLocations) {
    store<A, 2>(static_cast<A*>(p.grad_positions) + 2 * index, xy);
  } else {
    store<T, 2>(static_cast<T*>(p.grad_positions) + 2 * index, xy);
  }
}

// From pixels to what was given.
template <typename A>
__device__ __forceinline__ Point<A> position_scale(const Params& p, const Cell& cell, int32_t l) {
  if (p.pixel_gradients || p.form == Form::kPoints) return {A(1), A(1)};
  const A width = A(p.levels[l].width), height = A(p.levels[l].height);
  if (p.form == Form::kLocations) return {location_scale(width), location_scale(height)};
  const A* box = static_cast<const A*>(p.reference) + (cell.row * p.sizes.levels + l) * 4;
  const A unit = A(0.5) / A(p.sizes.points);
  return {box_scale(box[2], unit, width), box_scale(box[3], unit, height)};
}

// Gradient of a logit once the mean over the softmax is known, for samples whose gradients of weights were kept.
template <typename T, typename V>
__device__ __forceinline__ void finish_softmax(const Params& p, const Cell& cell, int lane,
                                               const Softmax<accumulator_t<T>>& softmax, accumulator_t<T> mean) {
  using A = accumulator_t<T>;
  const int64_t first = cell.index(p) * p.sizes.samples();
  const A* gradients = static_cast<const A*>(p.weight_gradients) + first;
  for (int k = lane; k < p.sizes.samples(); k += V::kGroup) {
    const A weight = weight_of<T>(p, first + k, softmax);
    write_given<T>(p, p.grad_attention, first + k, logit_gradient(weight, gradients[k], mean), false);
  }
}

template <typename T, typename V>
__global__ void __launch_bounds__(V::kThreads, 512 / V::kThreads)
    backward_samples_kernel(const __grid_constant__ Params p) {
  using A = accumulator_t<T>;
  using Index = typename V::Index;
  constexpr int kVector = V::kVector, kGroup = V::kGroup, kBytes = kVector * int(sizeof(T));
  __shared__ Four<Index> rows[V::kPairs][kChunk + 1];
  __shared__ Four<A> dots[V::kPairs][kChunk + 1];
  const int pair = threadIdx.x / kGroup, lane = threadIdx.x % kGroup;
  const Cell cell = cell_of(p, pair, V::kPairs);
  const Softmax<A> softmax = softmax_of<T, kGroup>(p, cell, lane);
  const int samples = p.sizes.samples(), vectors = p.sizes.channels / kVector;
  const Index stride = Index(p.sizes.heads) * vectors;
  const char* value =
      in_register(static_cast<const char*>(p.value) +
                  ((cell.batch * p.sizes.tokens * p.sizes.heads + cell.head) * vectors + lane) * int64_t(kBytes));
  const T* gradient = static_cast<const T*>(p.grad_output) + cell.index(p) * p.sizes.channels + lane * kVector;
  Pack<A, kVector> first = {};
  if (cell.valid() && lane < vectors) first = load<T, kVector>(gradient);
  A mean = 0;
  for (int chunk = 0; chunk < samples; chunk += kChunk) {
    __syncwarp();
#pragma unroll 1
    for (int slot = lane; slot < kChunk; slot += kGroup) {
      const int k = chunk + slot;
      Four<Index> row = {};
      row.x[0] = -1;
      if (cell.valid() && k < samples) {
        const int32_t l = level_of(p, k);
        const Corners<A> c = corners_of(p, cell.batch, l, read_pixel<T>(p, cell, k, l));
#pragma unroll
        for (int i = 0; i < kCorners; ++i) row.x[i] = c.inside ? Index(c.token[i]) * stride : Index(-1);
      }
      rows[pair][slot] = row;
    }
    __syncwarp();
    const int count = min(samples - chunk, kChunk);
#pragma unroll 1
    for (int s = 0; s < count; ++s) {
      const Four<Index> row = rows[pair][s];
      A d[kCorners] = {};
      if (row.x[0] >= 0 && lane < vectors) {
        Pack<A, kVector> g = first;
        for (int vector = 0;;) {
          word_t<T, kVector> in[kCorners];
#pragma unroll
          for (int i = 0; i < kCorners; ++i) {
            in[i] = load_word<T, kVector>(value + (int64_t(row.x[i]) + vector) * kBytes);
          }
#pragma unroll
          for (int i = 0; i < kCorners; ++i) {
#pragma unroll
            for (int j = 0; j < kVector; ++j) d[i] += g.x[j] * number_in<T, kVector>(in[i], j);
          }
          vector += kGroup;
          if (lane + vector >= vectors) break;
          g = load<T, kVector>(gradient + vector * kVector);
        }
      }
      reduce_corners<kGroup>(d, lane);
      if constexpr (kGroup == 2) {
        dots[pair][s].x[2 * lane] = d[0];
        dots[pair][s].x[2 * lane + 1] = d[1];
      } else if (lane < kCorners) {
        dots[pair][s].x[corner_of_lane(lane)] = d[0];
      }
    }
    __syncwarp();
    A kept[V::kRounds], weights[V::kRounds];
#pragma unroll
    for (int r = 0; r < V::kRounds; ++r) {
      const int slot = r * kGroup + lane, k = chunk + slot;
      kept[r] = weights[r] = 0;
      if (!cell.valid() || k >= samples) continue;
      const int64_t index = cell.index(p) * samples + k;
      const int32_t l = level_of(p, k);
      const Corners<A> c = corners_of(p, cell.batch, l, read_pixel<T>(p, cell, k, l));
      const A weight = weight_of<T>(p, index, softmax);
      Four<A> d = dots[pair][slot];
#pragma unroll
      for (int i = 0; i < kCorners; ++i) d.x[i] = c.inside >> i & 1u ? d.x[i] : A(0);
      const Point<A> scale = position_scale<A>(p, cell, l);
      const A x = x_gradient(d.x[0], d.x[1], d.x[2], d.x[3], c.fy, weight) * scale.x;
      const A y = y_gradient(d.x[0], d.x[1], d.x[2], d.x[3], c.fx, weight) * scale.y;
      write_position<T>(p, index, x, y);
      weights[r] = weight;
      kept[r] = weight_gradient(d.x[0], d.x[1], d.x[2], d.x[3], c.fx, c.fy);
      mean += weight * kept[r];
    }
    if (p.form != Form::kLocations && samples > kChunk) {
      // The softmax reaches over several chunks: its gradient waits for the last.
#pragma unroll
      for (int r = 0; r < V::kRounds; ++r) {
        const int k = chunk + r * kGroup + lane;
        if (cell.valid() && k < samples) {
          static_cast<A*>(p.weight_gradients)[cell.index(p) * samples + k] = kept[r];
        }
      }
      continue;
    }
    const A total = p.form == Form::kLocations ? A(0) : group_sum<kGroup>(mean);
#pragma unroll
    for (int r = 0; r < V::kRounds; ++r) {
      const int k = chunk + r * kGroup + lane;
      if (!cell.valid() || k >= samples) continue;
      const A x = p.form == Form::kLocations ? kept[r] : logit_gradient(weights[r], kept[r], total);
      write_given<T>(p, p.grad_attention, cell.index(p) * samples + k, x, false);
    }
  }
  if (p.form != Form::kLocations && samples > kChunk) {
    mean = group_sum<kGroup>(mean);
    if (cell.valid()) finish_softmax<T, V>(p, cell, lane, softmax, mean);
  }
}

}  // namespace msda

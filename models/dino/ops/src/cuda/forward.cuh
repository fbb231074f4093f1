// The forward kernel. A group of lanes serves one query and head. Its lanes first share the work on the samples
// (softmax, place, corners, weights: each once), then each walks over all samples for its own channels. Groups
// lie within a warp, so nothing ever waits for the whole block.
#pragma once

#include "samples.cuh"
#include "variants.h"

namespace msda {

template <typename T, typename V>
__global__ void __launch_bounds__(V::kThreads, 1024 / V::kThreads) forward_kernel(const __grid_constant__ Params p) {
  using A = accumulator_t<T>;
  using Index = typename V::Index;
  constexpr int kVector = V::kVector, kGroup = V::kGroup;
  // One more than a chunk: rows of neighbouring groups then begin in different banks.
  __shared__ Four<A> weights[V::kPairs][kChunk + 1];
  __shared__ Four<Index> rows[V::kPairs][kChunk + 1];
  const int pair = threadIdx.x / kGroup, lane = threadIdx.x % kGroup;
  const Cell cell = cell_of(p, pair, V::kPairs);
  const Softmax<A> softmax = softmax_of<T, kGroup>(p, cell, lane);
  const int samples = p.sizes.samples(), vectors = p.sizes.channels / kVector;
  const int vector = cell.turn * kGroup + lane;
  const Index stride = Index(p.sizes.heads) * vectors;
  constexpr int kBytes = kVector * int(sizeof(T));
  const char* value =
      in_register(static_cast<const char*>(p.value) +
                  ((cell.batch * p.sizes.tokens * p.sizes.heads + cell.head) * vectors + vector) * int64_t(kBytes));
  A total[kVector] = {};
  for (int chunk = 0; chunk < samples; chunk += kChunk) {
    __syncwarp();
#pragma unroll 1
    for (int slot = lane; slot < kChunk; slot += kGroup) {
      const int k = chunk + slot;
      Four<A> weight = {};
      Four<Index> row = {};
      row.x[0] = -1;
      if (cell.valid() && k < samples) {
        const int32_t l = level_of(p, k);
        const Corners<A> c = corners_of(p, cell.batch, l, read_pixel<T>(p, cell, k, l));
        const A attention = weight_of<T>(p, cell.index(p) * samples + k, softmax);
#pragma unroll
        for (int i = 0; i < kCorners; ++i) {
          weight.x[i] = c.inside >> i & 1u ? attention * corner_weight(i, c.fx, c.fy) : A(0);
          row.x[i] = c.inside ? Index(c.token[i]) * stride : Index(-1);
        }
      }
      weights[pair][slot] = weight;
      rows[pair][slot] = row;
    }
    __syncwarp();
    const int count = vector < vectors ? min(samples - chunk, kChunk) : 0;
#pragma unroll 1
    for (int s = 0; s < count; ++s) {
      const Four<Index> row = rows[pair][s];
      if (row.x[0] < 0) continue;
      const Four<A> weight = weights[pair][s];
      word_t<T, kVector> in[kCorners];
#pragma unroll
      for (int i = 0; i < kCorners; ++i) in[i] = load_word<T, kVector>(value + int64_t(row.x[i]) * kBytes);
#pragma unroll
      for (int i = 0; i < kCorners; ++i) {
#pragma unroll
        for (int j = 0; j < kVector; ++j) total[j] += weight.x[i] * number_in<T, kVector>(in[i], j);
      }
    }
  }
  if (cell.valid() && vector < vectors) {
    store<T, kVector>(static_cast<T*>(p.output) + cell.index(p) * p.sizes.channels + vector * kVector, total);
  }
}

}  // namespace msda

// Where the samples of a query and head fall. Used by all three kernels; the arithmetic is common/sampling.h.
#pragma once

#include "../common/sampling.h"
#include "numbers.cuh"
#include "params.h"

namespace msda {

constexpr unsigned kAllLanes = 0xffffffffu;

// One query and head of one image, and the channels of it that a group of lanes works on.
struct Cell {
  int64_t row;  // in (B, Q); -1: a tile may be larger than what is left of its level
  int32_t batch, head;
  int32_t turn;  // channels begin at turn * lanes * numbers per lane

  __device__ __forceinline__ bool valid() const { return row >= 0; }
  // In (B, Q, H).
  __device__ __forceinline__ int64_t index(const Params& p) const { return row * p.sizes.heads + head; }
};

__device__ __forceinline__ int32_t query_in_tile(const Params& p, int32_t tile, int32_t place, int32_t size) {
  if (!p.tiling.squares) {
    const int64_t query = int64_t(tile) * size + place;
    return query < p.sizes.queries ? int32_t(query) : -1;
  }
  int32_t l = 0;
  while (l + 1 < p.sizes.levels && tile >= p.tiling.first[l + 1]) ++l;
  const Level& level = p.levels[l];
  const int32_t t = tile - p.tiling.first[l];
  const int32_t x = t % p.tiling.columns[l] * kTileWidth + place % kTileWidth;
  const int32_t y = t / p.tiling.columns[l] * (size / kTileWidth) + place / kTileWidth;
  return x < level.width && y < level.height ? level.start + y * level.width + x : -1;
}

// Blocks count (image, tile, head, turn), turns innermost: what is read from memory for one head serves the others.
__device__ __forceinline__ Cell cell_of(const Params& p, int32_t place, int32_t size) {
  Cell cell;
  int64_t block = blockIdx.x;
  cell.turn = int32_t(block % p.turns);
  block /= p.turns;
  cell.head = int32_t(block % p.sizes.heads);
  block /= p.sizes.heads;
  cell.batch = int32_t(block / p.tiling.tiles);
  const int32_t query = query_in_tile(p, int32_t(block % p.tiling.tiles), place, size);
  cell.row = query < 0 ? -1 : cell.batch * p.sizes.queries + query;
  return cell;
}

// Exact for k < 2^22, far above any number of samples.
__device__ __forceinline__ int32_t level_of(const Params& p, int32_t k) {
  return int32_t((float(k) + 0.5f) / float(p.sizes.points));
}

// Number k of the attention of a cell: a weight, or a logit.
template <typename T>
__device__ __forceinline__ accumulator_t<T> read_attention(const Params& p, int64_t index) {
  using A = accumulator_t<T>;
  if (p.form == Form::kLocations) return load<A, 1>(static_cast<const A*>(p.attention) + index).x[0];
  return load<T, 1>(static_cast<const T*>(p.attention) + index).x[0];
}

template <typename A>
struct Point {
  A x, y;
};

// Sample k of a cell in pixels of its level.
template <typename T>
__device__ __forceinline__ Point<accumulator_t<T>> read_pixel(const Params& p, const Cell& cell, int32_t k,
                                                              int32_t l) {
  using A = accumulator_t<T>;
  const int64_t index = (cell.index(p) * p.sizes.samples() + k) * 2;
  const A width = A(p.levels[l].width), height = A(p.levels[l].height);
  if (p.form == Form::kLocations) {
    const Pack<A, 2> at = load<A, 2>(static_cast<const A*>(p.positions) + index);
    return {pixel_of_location(at.x[0], width), pixel_of_location(at.x[1], height)};
  }
  const Pack<A, 2> given = load<T, 2>(static_cast<const T*>(p.positions) + index);
  const A x = given.x[0], y = given.x[1];
  const int64_t row = cell.row * p.sizes.levels + l;
  if (p.form == Form::kPoints) {
    const Pack<A, 2> point = load<A, 2>(static_cast<const A*>(p.reference) + 2 * row);
    return {pixel_of_point(point.x[0], x, width), pixel_of_point(point.x[1], y, height)};
  }
  const A unit = A(0.5) / A(p.sizes.points);
  const Pack<A, 2> centre = load<A, 2>(static_cast<const A*>(p.reference) + 4 * row);
  const Pack<A, 2> extent = load<A, 2>(static_cast<const A*>(p.reference) + 4 * row + 2);
  return {pixel_of_box(centre.x[0], extent.x[0], x, unit, width),
          pixel_of_box(centre.x[1], extent.x[1], y, unit, height)};
}

// The four pixels around a sample. A corner outside the map or masked is not `inside` and repeats the token of one
// that is, so that reading it is harmless: what it brings is worth nothing, and finite if the sample's result is.
template <typename A>
struct Corners {
  A fx, fy;
  int32_t x, y;  // of the upper left corner
  int32_t token[kCorners];
  uint32_t inside;  // bit per corner
};

template <typename A>
__device__ __forceinline__ Corners<A> corners_of(const Params& p, int32_t batch, int32_t l, Point<A> at) {
  const Level& level = p.levels[l];
  Corners<A> c;
  c.inside = 0;
  const bool near = touches(at.x, at.y, A(level.width), A(level.height));
  const A x = near ? at.x : A(0), y = near ? at.y : A(0);
  c.x = floor_of(x);
  c.y = floor_of(y);
  c.fx = x - A(c.x);
  c.fy = y - A(c.y);
  const int32_t left = max(c.x, 0), right = min(c.x + 1, level.width - 1);
  const int32_t upper = level.start + max(c.y, 0) * level.width;
  const int32_t lower = level.start + min(c.y + 1, level.height - 1) * level.width;
  c.token[0] = upper + left;
  c.token[1] = upper + right;
  c.token[2] = lower + left;
  c.token[3] = lower + right;
  if (!near) return c;
  const uint32_t columns = (c.x >= 0 ? 5u : 0u) | (c.x + 1 < level.width ? 10u : 0u);
  const uint32_t rows = (c.y >= 0 ? 3u : 0u) | (c.y + 1 < level.height ? 12u : 0u);
  c.inside = columns & rows;
  if (p.mask) {
    const bool* mask = p.mask + int64_t(batch) * p.sizes.tokens;
    int32_t open = -1;
#pragma unroll
    for (int i = 0; i < kCorners; ++i) {
      if (!(c.inside >> i & 1u)) continue;
      if (mask[c.token[i]]) {
        c.inside &= ~(1u << i);
      } else {
        open = c.token[i];
      }
    }
#pragma unroll
    for (int i = 0; i < kCorners; ++i) {
      if (!(c.inside >> i & 1u)) c.token[i] = open;
    }
  }
  return c;
}

// What turns logits into weights.
template <typename A>
struct Softmax {
  A largest, scale;
};

__device__ __forceinline__ float exponential(float x) { return __expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

template <int kGroup, typename A>
__device__ __forceinline__ A group_sum(A x) {
#pragma unroll
  for (int step = kGroup / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

template <int kGroup, typename A>
__device__ __forceinline__ A group_max(A x) {
#pragma unroll
  for (int step = kGroup / 2; step > 0; step /= 2) {
    const A other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}

// By a group of lanes, for their cell. In the plain form weights are taken as they are.
template <typename T, int kGroup>
__device__ __forceinline__ Softmax<accumulator_t<T>> softmax_of(const Params& p, const Cell& cell, int lane) {
  using A = accumulator_t<T>;
  if (p.form == Form::kLocations) return {A(0), A(1)};
  const int32_t samples = cell.valid() ? p.sizes.samples() : 0;
  const int64_t first = cell.index(p) * p.sizes.samples();
  A largest = -INFINITY;
#pragma unroll 1
  for (int k = lane; k < samples; k += kGroup) {
    const A logit = read_attention<T>(p, first + k);
    largest = logit > largest ? logit : largest;
  }
  largest = group_max<kGroup>(largest);
  A total = 0;
#pragma unroll 1
  for (int k = lane; k < samples; k += kGroup) total += exponential(read_attention<T>(p, first + k) - largest);
  return {largest, A(1) / group_sum<kGroup>(total)};
}

template <typename T>
__device__ __forceinline__ accumulator_t<T> weight_of(const Params& p, int64_t index,
                                                      const Softmax<accumulator_t<T>>& softmax) {
  const accumulator_t<T> x = read_attention<T>(p, index);
  return p.form == Form::kLocations ? x : exponential(x - softmax.largest) * softmax.scale;
}

}  // namespace msda

// Sorts the samples of a tile by the pixel they fall on, within a window of one level, so that what many samples
// add to one pixel is summed on chip and reaches memory once.
//
// Used by a whole block; every function that says so must be called by all threads.
#pragma once

#include "samples.cuh"

namespace msda {

constexpr int kBinThreads = 256;
constexpr int kBinSamples = 256;  // one per thread
constexpr int kCells = 1024;
constexpr int kWindow = 32;  // sides of the window where the level is larger

// A cell is a place for the upper left corner of a sample: -1 .. width - 1, -1 .. height - 1.
struct Window {
  int32_t x, y;  // of cell (0, 0)
  int32_t width, height;

  __device__ __forceinline__ int32_t cell(int32_t cx, int32_t cy) const {
    const bool in = cx >= 0 && cx < width && cy >= 0 && cy < height;
    return in ? cy * width + cx : -1;
  }
};

struct Bins {
  int32_t start[kCells + 1];     // first entry of each cell
  uint16_t order[kBinSamples];   // samples by cell
  uint16_t outside[kBinSamples]; // samples that fall beside the window
  int32_t outside_count;
  int32_t sum_x, sum_y, count;   // of the corners, for the window's place
  int32_t left, top, right, bottom;  // cells in use
  int32_t warp_total[kBinThreads / 32];
};

__device__ __forceinline__ int32_t warp_sum(int32_t x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ __forceinline__ int32_t warp_min(int32_t x) {
  for (int step = 16; step > 0; step /= 2) x = min(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// All threads. Ends with a barrier.
__device__ __forceinline__ void reset(Bins& bins) {
  for (int i = threadIdx.x; i <= kCells; i += kBinThreads) bins.start[i] = 0;
  if (threadIdx.x == 0) {
    bins.outside_count = bins.sum_x = bins.sum_y = bins.count = 0;
    bins.left = bins.top = 0x7fffffff;
    bins.right = bins.bottom = -1;
  }
  __syncthreads();
}

// The whole level if its cells are few enough, else a window around the mean of the samples. All threads; `live` says
// whether the thread's sample has a corner (x, y) to sort. Ends with a barrier.
__device__ __forceinline__ Window place_window(Bins& bins, const Level& level, bool live, int32_t x, int32_t y) {
  const int32_t columns = level.width + 1, rows = level.height + 1;
  const int32_t sum_x = warp_sum(live ? x : 0), sum_y = warp_sum(live ? y : 0), count = warp_sum(live ? 1 : 0);
  if (threadIdx.x % 32 == 0 && count > 0) {
    atomicAdd(&bins.sum_x, sum_x);
    atomicAdd(&bins.sum_y, sum_y);
    atomicAdd(&bins.count, count);
  }
  __syncthreads();
  if (int64_t(columns) * rows <= kCells) return {-1, -1, columns, rows};
  // A narrow level leaves its cells to the other side.
  Window w;
  w.width = min(columns, max(kWindow, kCells / rows));
  w.height = min(rows, kCells / w.width);
  const int32_t n = max(bins.count, 1);
  w.x = min(max(bins.sum_x / n - w.width / 2, -1), columns - 1 - w.width);
  w.y = min(max(bins.sum_y / n - w.height / 2, -1), rows - 1 - w.height);
  return w;
}

// All threads. Ends with a barrier.
__device__ __forceinline__ void sort(Bins& bins, const Window& window, bool live, int32_t x, int32_t y) {
  const int32_t cx = x - window.x, cy = y - window.y;
  const int32_t cell = live ? window.cell(cx, cy) : -1;
  int32_t rank = 0;
  if (cell >= 0) {
    rank = atomicAdd(&bins.start[cell], 1);
  } else if (live) {
    bins.outside[atomicAdd(&bins.outside_count, 1)] = uint16_t(threadIdx.x);
  }
  const int32_t left = warp_min(cell < 0 ? 0x7fffffff : cx), top = warp_min(cell < 0 ? 0x7fffffff : cy);
  const int32_t right = -warp_min(cell < 0 ? 1 : -cx), bottom = -warp_min(cell < 0 ? 1 : -cy);
  if (threadIdx.x % 32 == 0 && right >= 0) {
    atomicMin(&bins.left, left);
    atomicMin(&bins.top, top);
    atomicMax(&bins.right, right);
    atomicMax(&bins.bottom, bottom);
  }
  __syncthreads();
  // From counts to starts: four cells per thread, then over the threads of a warp, then over the warps.
  constexpr int kEach = kCells / kBinThreads;
  const int32_t first = threadIdx.x * kEach;
  int32_t before[kEach], total = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    before[i] = total;
    total += bins.start[first + i];
  }
  int32_t running = total;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, running, step);
    if (int(threadIdx.x % 32) >= step) running += other;
  }
  if (threadIdx.x % 32 == 31) bins.warp_total[threadIdx.x / 32] = running;
  __syncthreads();
  int32_t offset = running - total;
  for (int i = 0; i < int(threadIdx.x / 32); ++i) offset += bins.warp_total[i];
#pragma unroll
  for (int i = 0; i < kEach; ++i) bins.start[first + i] = offset + before[i];
  if (threadIdx.x == kBinThreads - 1) bins.start[kCells] = offset + total;
  __syncthreads();
  if (cell >= 0) bins.order[bins.start[cell] + rank] = uint16_t(threadIdx.x);
  __syncthreads();
}

}  // namespace msda

// Deformable attention as its first implementation is described: float32, a thread per channel, everything about a
// sample computed anew by every channel, level shapes in the GPU's memory, scalar atomics, sums over a head's
// channels added up by one thread. Written from that description, to measure against; nothing else uses it.
#include <cuda_runtime.h>

#include <cstdint>

namespace {

constexpr int kForwardThreads = 1024;
constexpr int kMostChannels = 1024;

struct Sizes {
  int tokens, queries, heads, channels, levels, points;
};

// Where one sample falls on its level, and the weights of its four pixels.
struct Sample {
  int x, y, width, height;
  float left, right, upper, lower;
  bool inside;

  __device__ Sample(float at_x, float at_y, int width, int height) : width(width), height(height) {
    const float px = at_x * width - 0.5f, py = at_y * height - 0.5f;
    inside = px > -1 && py > -1 && px < width && py < height;
    x = int(floorf(px));
    y = int(floorf(py));
    right = px - x;
    lower = py - y;
    left = 1 - right;
    upper = 1 - lower;
  }
  __device__ bool holds(int dx, int dy) const {
    return x + dx >= 0 && x + dx < width && y + dy >= 0 && y + dy < height;
  }
  __device__ int pixel(int dx, int dy) const { return (y + dy) * width + x + dx; }
};

__global__ void forward_kernel(int count, const float* value, const int64_t* shapes, const int64_t* starts,
                               const float* locations, const float* weights, Sizes s, float* output) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= count) return;
  const int channel = index % s.channels;
  const int cell = index / s.channels;
  const int head = cell % s.heads;
  const int batch = cell / s.heads / s.queries;
  const int stride = s.heads * s.channels;
  const float* image = value + batch * s.tokens * stride + head * s.channels + channel;
  int at = cell * s.levels * s.points;
  float sum = 0;
  for (int l = 0; l < s.levels; ++l) {
    const int height = int(shapes[2 * l]), width = int(shapes[2 * l + 1]);
    const float* level = image + starts[l] * stride;
    for (int p = 0; p < s.points; ++p, ++at) {
      const Sample sample(locations[2 * at], locations[2 * at + 1], width, height);
      if (!sample.inside) continue;
      const float v0 = sample.holds(0, 0) ? level[sample.pixel(0, 0) * stride] : 0;
      const float v1 = sample.holds(1, 0) ? level[sample.pixel(1, 0) * stride] : 0;
      const float v2 = sample.holds(0, 1) ? level[sample.pixel(0, 1) * stride] : 0;
      const float v3 = sample.holds(1, 1) ? level[sample.pixel(1, 1) * stride] : 0;
      sum += weights[at] * (sample.upper * (sample.left * v0 + sample.right * v1) +
                            sample.lower * (sample.left * v2 + sample.right * v3));
    }
  }
  output[index] = sum;
}

// A block is a query and a head, a thread one of its channels.
__global__ void backward_kernel(const float* grad_output, const float* value, const int64_t* shapes,
                                const int64_t* starts, const float* locations, const float* weights, Sizes s,
                                float* grad_value, float* grad_locations, float* grad_weights) {
  __shared__ float share_x[kMostChannels], share_y[kMostChannels], share_weight[kMostChannels];
  const int channel = threadIdx.x, cell = blockIdx.x;
  const int head = cell % s.heads;
  const int batch = cell / s.heads / s.queries;
  const int stride = s.heads * s.channels;
  const int image = batch * s.tokens * stride + head * s.channels + channel;
  const float top = grad_output[cell * s.channels + channel];
  int at = cell * s.levels * s.points;
  for (int l = 0; l < s.levels; ++l) {
    const int height = int(shapes[2 * l]), width = int(shapes[2 * l + 1]);
    const int level = image + int(starts[l]) * stride;
    for (int p = 0; p < s.points; ++p, ++at) {
      const Sample sample(locations[2 * at], locations[2 * at + 1], width, height);
      const float weight = weights[at];
      float v[4] = {0, 0, 0, 0};
      if (sample.inside) {
        const float share[4] = {sample.upper * sample.left, sample.upper * sample.right, sample.lower * sample.left,
                                sample.lower * sample.right};
        for (int i = 0; i < 4; ++i) {
          const int dx = i % 2, dy = i / 2;
          if (!sample.holds(dx, dy)) continue;
          const int place = level + sample.pixel(dx, dy) * stride;
          v[i] = value[place];
          atomicAdd(grad_value + place, top * weight * share[i]);
        }
      }
      share_x[channel] = top * weight * width * (sample.upper * (v[1] - v[0]) + sample.lower * (v[3] - v[2]));
      share_y[channel] = top * weight * height * (sample.left * (v[2] - v[0]) + sample.right * (v[3] - v[1]));
      share_weight[channel] = top * (sample.upper * (sample.left * v[0] + sample.right * v[1]) +
                                     sample.lower * (sample.left * v[2] + sample.right * v[3]));
      __syncthreads();
      if (channel == 0) {
        float x = 0, y = 0, w = 0;
        for (int c = 0; c < s.channels; ++c) {
          x += share_x[c];
          y += share_y[c];
          w += share_weight[c];
        }
        grad_locations[2 * at] = x;
        grad_locations[2 * at + 1] = y;
        grad_weights[at] = w;
      }
      __syncthreads();
    }
  }
}

template <typename... Given>
int launch(void (*kernel)(Given...), int blocks, int threads, void* stream, Given... given) {
  void* arguments[] = {&given...};
  const dim3 grid(blocks), block(threads);
  const cudaError_t error = cudaLaunchKernel(kernel, grid, block, arguments, 0, static_cast<cudaStream_t>(stream));
  return int(error == cudaSuccess ? cudaGetLastError() : error);
}

}  // namespace

// sizes: B, S, Q, H, C, L, P. Arrays as in benchmarks/msda/plain.py. Return CUDA's status.
extern "C" int plain_forward(const int32_t* sizes, const float* value, const int64_t* shapes, const int64_t* starts,
                             const float* locations, const float* weights, float* output, void* stream) {
  const Sizes s{sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6]};
  const int count = sizes[0] * s.queries * s.heads * s.channels;
  return launch(forward_kernel, (count + kForwardThreads - 1) / kForwardThreads, kForwardThreads, stream, count,
                value, shapes, starts, locations, weights, s, output);
}

extern "C" int plain_backward(const int32_t* sizes, const float* grad_output, const float* value,
                              const int64_t* shapes, const int64_t* starts, const float* locations,
                              const float* weights, float* grad_value, float* grad_locations, float* grad_weights,
                              void* stream) {
  const Sizes s{sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6]};
  return launch(backward_kernel, sizes[0] * s.queries * s.heads, s.channels, stream, grad_output, value, shapes,
                starts, locations, weights, s, grad_value, grad_locations, grad_weights);
}

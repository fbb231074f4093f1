// Gradient of the value with the same bits every time: sums of 64-bit integers do not depend on their order. A power
// of two brings the largest possible sum below 2^61, so at most the last bits of what float holds are lost.
#include "dispatch.cuh"
#include "samples.cuh"

namespace msda {
namespace {

constexpr int kLanes = 8;
constexpr int kThreads = 256;

// NaN when there is no bound: then every gradient becomes NaN.
template <typename A>
__device__ double scale_of(const Params& p) {
  const A* bounds = static_cast<const A*>(p.bounds);
  // A softmax whose largest logit is not finite has no bound; given weights carry theirs into the product.
  if (p.form != Form::kLocations && !(bounds[1] < A(INFINITY))) return double(NAN);
  // One query's softmax adds at most its gradient to a pixel; given weights add what they add up to.
  const double weight = p.form == Form::kLocations ? double(bounds[1]) * p.sizes.samples() : 1.0;
  const double most = double(bounds[0]) * weight * double(p.sizes.queries);
  if (most == 0) return 1.0;
  if (!(most < INFINITY)) return double(NAN);
  int exponent;
  frexp(most, &exponent);
  return ldexp(1.0, min(61 - exponent, 1023));  // 2^1024 is no number
}

template <typename T>
__global__ void __launch_bounds__(kThreads) add_integers_kernel(const __grid_constant__ Params p, long long* sums) {
  using A = accumulator_t<T>;
  const int lane = threadIdx.x % kLanes;
  const Cell cell = cell_of(p, threadIdx.x / kLanes, kThreads / kLanes);
  const Softmax<A> softmax = softmax_of<T, kLanes>(p, cell, lane);
  if (!cell.valid()) return;
  const double scale = scale_of<A>(p);
  const int samples = p.sizes.samples(), channels = p.sizes.channels;
  const T* gradient = static_cast<const T*>(p.grad_output) + cell.index(p) * channels;
  for (int k = 0; k < samples; ++k) {
    const int32_t l = level_of(p, k);
    const Corners<A> c = corners_of(p, cell.batch, l, read_pixel<T>(p, cell, k, l));
    const A attention = weight_of<T>(p, cell.index(p) * samples + k, softmax);
    for (int corner = 0; corner < kCorners; ++corner) {
      if (!(c.inside >> corner & 1u)) continue;
      const double weight = scale * double(attention * corner_weight(corner, c.fx, c.fy));
      const int64_t token = cell.batch * p.sizes.tokens + c.token[corner];
      long long* out = sums + (token * p.sizes.heads + cell.head) * channels;
      for (int i = lane; i < channels; i += kLanes) {
        const long long share = llrint(weight * double(load<T, 1>(gradient + i).x[0]));
        atomicAdd(reinterpret_cast<unsigned long long*>(out + i), static_cast<unsigned long long>(share));
      }
    }
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads) from_integers_kernel(const __grid_constant__ Params p,
                                                                 const long long* sums) {
  const double scale = scale_of<A>(p);
  const int64_t count = p.sizes.batch * p.sizes.tokens * p.sizes.heads * p.sizes.channels;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads) {
    static_cast<A*>(p.grad_value)[i] = A(double(sums[i]) / scale);
  }
}

template <typename T>
cudaError_t run(const Arguments& a, const Workspace& w, long long* sums, cudaStream_t stream) {
  Params params = params_of(a, w, kThreads / kLanes);
  params.turns = 1;
  const int64_t blocks = a.sizes.batch * a.sizes.heads * int64_t(params.tiling.tiles);
  const cudaError_t error = launch(add_integers_kernel<T>, blocks, kThreads, stream, params, sums);
  if (error != cudaSuccess) return error;
  const int64_t count = a.sizes.batch * a.sizes.tokens * a.sizes.heads * a.sizes.channels;
  const int64_t most = std::min<int64_t>((count + kThreads - 1) / kThreads, 4096);
  const long long* const_sums = sums;
  return launch(from_integers_kernel<accumulator_t<T>>, most, kThreads, stream, params, const_sums);
}

}  // namespace

cudaError_t cuda_backward_value_deterministic(const Arguments& arguments, const Workspace& workspace,
                                              long long* sums, cudaStream_t stream) {
  switch (arguments.number) {
    case Number::kFloat: return run<float>(arguments, workspace, sums, stream);
    case Number::kDouble: return run<double>(arguments, workspace, sums, stream);
    case Number::kHalf: return run<Half>(arguments, workspace, sums, stream);
    case Number::kBFloat16: return run<BFloat16>(arguments, workspace, sums, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace msda

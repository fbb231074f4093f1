// From a call to a kernel: variant, tiles, launch.
#pragma once

#include <algorithm>

#include "launch.h"
#include "numbers.cuh"
#include "params.h"
#include "variants.h"

namespace msda {

// Images of fewer numbers are indexed with 32 bits. A variable, so that tests reach the other side of it.
inline int64_t numbers_for_64_bits = int64_t(1) << 31;

inline Tiling tiling_of(const Arguments& a, int size) {
  Tiling t{};
  const Sizes& s = a.sizes;
  // An image's queries are its pixels in the encoder. Nothing but speed depends on that guess.
  t.squares = s.queries == s.tokens;
  if (!t.squares) {
    t.tiles = int32_t((s.queries + size - 1) / size);
    return t;
  }
  const int height = std::max(size / kTileWidth, 1);
  for (int l = 0; l < s.levels; ++l) {
    t.first[l] = t.tiles;
    t.columns[l] = std::max((a.levels[l].width + kTileWidth - 1) / kTileWidth, 1);
    t.tiles += t.columns[l] * ((a.levels[l].height + height - 1) / height);
  }
  return t;
}

inline Params params_of(const Arguments& a, const Workspace& w, int tile_size) {
  Params p{};
  p.sizes = a.sizes;
  p.form = a.form;
  p.pixel_gradients = a.pixel_gradients;
  p.value = a.value;
  p.positions = a.positions;
  p.attention = a.attention;
  p.reference = a.reference;
  p.mask = a.mask;
  p.output = a.output;
  p.grad_output = a.grad_output;
  p.grad_value = a.grad_value;
  p.grad_positions = a.grad_positions;
  p.grad_attention = a.grad_attention;
  p.weight_gradients = w.weight_gradients;
  p.bounds = w.bounds;
  std::copy(a.levels, a.levels + a.sizes.levels, p.levels);
  p.tiling = tiling_of(a, tile_size);
  return p;
}

// Not <<<>>>: an error comes back to the caller, and the kernels also compile where nvcc is not (tests).
template <typename... Args>
cudaError_t launch(void (*kernel)(Args...), int64_t blocks, int threads, cudaStream_t stream, Args... args) {
  if (blocks == 0) return cudaSuccess;
  if (blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
  void* arguments[] = {&args...};
  const dim3 grid(static_cast<unsigned>(blocks)), block(static_cast<unsigned>(threads));
  const cudaError_t error = cudaLaunchKernel(kernel, grid, block, arguments, 0, stream);
  // Asked for in any case: the question also clears it, or PyTorch's next check would report it again.
  const cudaError_t last = cudaGetLastError();
  return error == cudaSuccess ? last : error;
}

template <typename Kernel, typename T, typename V>
cudaError_t launch_variant(const Arguments& a, const Workspace& w, cudaStream_t stream) {
  Params params = params_of(a, w, Kernel::template tile<V>());
  params.turns = Kernel::template turns<V>(a.sizes.channels);
  const int64_t blocks = a.sizes.batch * a.sizes.heads * params.turns * int64_t(params.tiling.tiles);
  return launch(Kernel::template kernel<T, V>(), blocks, Kernel::template threads<V>(), stream, params);
}

template <typename Kernel, typename T>
cudaError_t dispatch_group(const Arguments& a, const Workspace& w, cudaStream_t stream) {
  constexpr int kVector = 16 / int(sizeof(T));
  const int64_t numbers = a.sizes.tokens * a.sizes.heads * a.sizes.channels;
  if (numbers >= numbers_for_64_bits) return launch_variant<Kernel, T, Variant<1, 8, int64_t>>(a, w, stream);
  if (a.sizes.channels % kVector) return launch_variant<Kernel, T, Variant<1, 8, int32_t>>(a, w, stream);
  const int vectors = a.sizes.channels / kVector;
  if constexpr (sizeof(T) < 8) {
    if (vectors <= 2) return launch_variant<Kernel, T, Variant<kVector, 2, int32_t>>(a, w, stream);
    if (vectors <= 4) return launch_variant<Kernel, T, Variant<kVector, 4, int32_t>>(a, w, stream);
    if (vectors <= 8) return launch_variant<Kernel, T, Variant<kVector, 8, int32_t>>(a, w, stream);
  }
  return launch_variant<Kernel, T, Variant<kVector, 16, int32_t>>(a, w, stream);
}

// Kernel tells for a variant V: kernel<T, V>(), threads<V>() of a block, tile<V>() queries of a tile, and
// turns<V>(channels), how many blocks share a head's channels.
template <typename Kernel>
cudaError_t dispatch(const Arguments& a, const Workspace& w, cudaStream_t stream) {
  switch (a.number) {
    case Number::kFloat: return dispatch_group<Kernel, float>(a, w, stream);
    case Number::kDouble: return dispatch_group<Kernel, double>(a, w, stream);
    case Number::kHalf: return dispatch_group<Kernel, Half>(a, w, stream);
    case Number::kBFloat16: return dispatch_group<Kernel, BFloat16>(a, w, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace msda

// Between the tensors and the working copies (layout.h), row by row.
#pragma once

#include "layout.h"
#include "numbers.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {

template <typename A>
void pack(const Arguments& arguments, const Group& group, int64_t begin, int64_t end) {
  const Sizes& s = arguments.sizes;
  const Layout<A> layout(arguments);
  const int stride = layout.stride();
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t slot = unit / layout.rows(), pair = group.first + slot;
    const int64_t batch = pair / s.heads, head = pair % s.heads;
    const auto [level, y] = layout.row(unit % layout.rows());
    A* out = static_cast<A*>(group.copies) + slot * layout.numbers() +
             (level->origin + int64_t(y) * level->pitch - 1) * stride;
    if (y < 0 || y >= level->height) {
      zero(out, int64_t(level->pitch + (y == level->height ? 1 : 0)) * stride);
      continue;
    }
    const int64_t token = batch * s.tokens + level->token + int64_t(y) * level->width;
    zero(out, stride);
    for (int x = 0; x < level->width; ++x) {
      out += stride;
      if (arguments.mask && arguments.mask[token + x]) {
        zero(out, stride);
      } else {
        read(arguments.number, arguments.value, ((token + x) * s.heads + head) * s.channels, s.channels, out);
        zero(out + s.channels, stride - s.channels);
      }
    }
  }
}

// A masked token's value does not reach the output: its gradient is zero.
template <typename A>
void unpack(const Arguments& arguments, const Group& group, int64_t begin, int64_t end) {
  const Sizes& s = arguments.sizes;
  const Layout<A> layout(arguments);
  const int stride = layout.stride();
  const std::vector<A> zeros(s.channels);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t slot = unit / layout.rows(), pair = group.first + slot;
    const int64_t batch = pair / s.heads, head = pair % s.heads;
    const auto [level, y] = layout.row(unit % layout.rows());
    if (y < 0 || y >= level->height) continue;
    const A* in = static_cast<const A*>(group.copies) + slot * layout.numbers() +
                  (level->origin + int64_t(y) * level->pitch) * stride;
    const int64_t token = batch * s.tokens + level->token + int64_t(y) * level->width;
    for (int x = 0; x < level->width; ++x) {
      const bool masked = arguments.mask && arguments.mask[token + x];
      write(arguments.number, arguments.grad_value, ((token + x) * s.heads + head) * s.channels, s.channels,
            masked ? zeros.data() : in + int64_t(x) * stride);
    }
  }
}

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

// What the CPU kernels of one instruction set offer to the driver. Plain data in, plain loops out: the driver
// owns the memory and the threads.
#pragma once

#include "../common/arguments.h"

namespace msda {

// The (batch, head) pairs in work at a time, counted batch * H + head, and their working copies one behind
// the other.
struct Group {
  int64_t first;
  int64_t count;
  void* copies;
};

struct Kernels {
  const char* name;
  // Bytes of one working copy, and its rows over all levels.
  int64_t (*copy_bytes)(const Arguments&);
  int64_t (*copy_rows)(const Arguments&);
  // Rows [begin, end) of count * copy_rows: value to working copy, and working copy to grad_value.
  void (*pack)(const Arguments&, const Group&, int64_t begin, int64_t end);
  void (*unpack)(const Arguments&, const Group&, int64_t begin, int64_t end);
  // Cells [begin, end) of count * Q: outputs, and gradients of positions and attention.
  void (*forward)(const Arguments&, const Group&, int64_t begin, int64_t end);
  void (*backward_samples)(const Arguments&, const Group&, int64_t begin, int64_t end);
  // Tasks [begin, end) of count * L: gradient of the value into the working copies. A task owns its level.
  void (*backward_value)(const Arguments&, const Group&, int64_t begin, int64_t end);
};

// Of the best instruction set that was compiled in and that this processor has. Throws std::runtime_error when
// there is none. ATEN_CPU_CAPABILITY holds it back, as it does PyTorch.
const Kernels& kernels_for(Number number);

}  // namespace msda

#include "driver.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernel.h"

namespace msda {
namespace {

// Fewer rows or cells than this are not worth another thread.
constexpr int64_t kRowGrain = 16, kCellGrain = 64;

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// As many (batch, head) pairs at a time as there are threads: their working copies are all the memory that a call
// needs, and stay in the cache between the walks.
template <typename Walk>
void for_each_group(const Arguments& arguments, const Kernels& kernels, const Walk& walk) {
  const int64_t pairs = arguments.sizes.batch * arguments.sizes.heads;
  const int64_t count = std::min<int64_t>(pairs, std::max(at::get_num_threads(), 1));
  const int64_t bytes = kernels.copy_bytes(arguments) * count;
  std::unique_ptr<void, Free> copies(std::aligned_alloc(64, size_t(bytes + 63) / 64 * 64));
  if (!copies) throw std::bad_alloc();
  for (int64_t first = 0; first < pairs; first += count) {
    walk(Group{first, std::min(count, pairs - first), copies.get()});
  }
}

using Step = void (*)(const Arguments&, const Group&, int64_t, int64_t);

void in_parallel(const Arguments& arguments, const Group& group, Step step, int64_t count, int64_t grain) {
  at::parallel_for(0, count, grain,
                   [&](int64_t begin, int64_t end) { step(arguments, group, begin, end); });
}

}  // namespace

void cpu_forward(const Arguments& arguments) {
  const Kernels& kernels = kernels_for(arguments.number);
  const int64_t rows = kernels.copy_rows(arguments), queries = arguments.sizes.queries;
  for_each_group(arguments, kernels, [&](const Group& group) {
    in_parallel(arguments, group, kernels.pack, group.count * rows, kRowGrain);
    in_parallel(arguments, group, kernels.forward, group.count * queries, kCellGrain);
  });
}

void cpu_backward(const Arguments& arguments) {
  const Kernels& kernels = kernels_for(arguments.number);
  const int64_t rows = kernels.copy_rows(arguments), queries = arguments.sizes.queries;
  for_each_group(arguments, kernels, [&](const Group& group) {
    in_parallel(arguments, group, kernels.pack, group.count * rows, kRowGrain);
    in_parallel(arguments, group, kernels.backward_samples, group.count * queries, kCellGrain);
    in_parallel(arguments, group, kernels.backward_value, group.count * arguments.sizes.levels, 1);
    in_parallel(arguments, group, kernels.unpack, group.count * rows, kRowGrain);
  });
}

}  // namespace msda

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda_runtime.h"
#include "dispatch.cuh"
#include "launch.h"

dim3 threadIdx(0, 0, 0), blockIdx(0, 0, 0), blockDim, gridDim;

namespace emulator {

cudaError_t refusal = cudaSuccess, last_error = cudaSuccess;

namespace {

constexpr size_t kStack = 256 * 1024;

struct Fiber {
  ucontext_t context;
  Barrier waits = Barrier::kNone;
  bool done = false;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<std::vector<char>> stacks;
  std::vector<uint64_t> mail;
  ucontext_t scheduler;
  unsigned current = 0;
  const std::function<void()>* body = nullptr;
};
Block block;

[[noreturn]] void fail(const char* message) {
  std::fprintf(stderr, "block %u thread %u: %s\n", blockIdx.x, block.current, message);
  std::abort();
}

void enter() {
  (*block.body)();
  block.fibers[block.current].done = true;
  swapcontext(&block.fibers[block.current].context, &block.scheduler);
}

// Lets every fiber of [begin, end) go on to its next barrier; returns whether any is left.
bool step(unsigned begin, unsigned end) {
  bool left = false;
  for (unsigned t = begin; t < end; ++t) {
    Fiber& fiber = block.fibers[t];
    if (fiber.done) continue;
    block.current = t;
    threadIdx.x = t;
    swapcontext(&block.scheduler, &fiber.context);
    left |= !fiber.done;
  }
  return left;
}

// What all fibers of [begin, end) that are left wait for.
Barrier common(unsigned begin, unsigned end) {
  Barrier barrier = Barrier::kNone;
  for (unsigned t = begin; t < end; ++t) {
    const Fiber& fiber = block.fibers[t];
    if (fiber.done) continue;
    if (barrier != Barrier::kNone && fiber.waits != barrier) fail("threads wait at different barriers");
    barrier = fiber.waits;
  }
  return barrier;
}

void run_block(unsigned threads) {
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = block.fibers[t];
    fiber.waits = Barrier::kNone;
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = block.stacks[t].data();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (bool left = true; left;) {
    left = false;
    // A warp runs until it waits for the block.
    for (unsigned warp = 0; warp < threads; warp += 32) {
      while (step(warp, warp + 32) && common(warp, warp + 32) != Barrier::kBlock) {
      }
    }
    if (common(0, threads) == Barrier::kBlock) left = true;
  }
}

}  // namespace

void run(unsigned blocks, unsigned threads, const std::function<void()>& body) {
  block.body = &body;
  block.fibers.resize(threads);
  block.mail.resize(threads);
  while (block.stacks.size() < threads) block.stacks.emplace_back(kStack);
  gridDim = dim3(blocks);
  blockDim = dim3(threads);
  for (unsigned b = 0; b < blocks; ++b) {
    blockIdx = dim3(b, 0, 0);
    run_block(threads);
  }
}

void wait(Barrier barrier) {
  if (barrier == Barrier::kNone) fail("unaligned access");
  Fiber& fiber = block.fibers[block.current];
  fiber.waits = barrier;
  const unsigned me = block.current;
  swapcontext(&fiber.context, &block.scheduler);
  threadIdx.x = me;
}

uint64_t& mailbox(unsigned thread) { return block.mail[thread]; }

}  // namespace emulator

using namespace msda;

// From so many numbers in an image on, indices take 64 bits.
extern "C" void set_numbers_for_64_bits(int64_t count) { numbers_for_64_bits = count; }

extern "C" void refuse_next_launch() { emulator::refusal = cudaErrorInvalidConfiguration; }
extern "C" int take_last_error() { return cudaGetLastError(); }

// sizes: B, S, Q, H, C, L, P. levels: height, width, start of each. pointers: value, positions, attention,
// reference, mask, output, grad_output, grad_value, grad_positions, grad_attention, weight_gradients, bounds, sums.
// Returns CUDA's status.
extern "C" int emulate(const char* what, const int64_t* sizes, const int32_t* levels, int form, int number,
                       int pixel_gradients, void* const* pointers) {
  Arguments a{};
  a.sizes = {sizes[0], sizes[1], sizes[2], int32_t(sizes[3]), int32_t(sizes[4]), int32_t(sizes[5]),
             int32_t(sizes[6])};
  a.form = Form(form);
  a.number = Number(number);
  a.levels = reinterpret_cast<const Level*>(levels);
  a.value = pointers[0];
  a.positions = pointers[1];
  a.attention = pointers[2];
  a.reference = pointers[3];
  a.mask = static_cast<const bool*>(pointers[4]);
  a.output = pointers[5];
  a.grad_output = pointers[6];
  a.grad_value = pointers[7];
  a.grad_positions = pointers[8];
  a.grad_attention = pointers[9];
  a.pixel_gradients = pixel_gradients;
  const Workspace w{pointers[10], pointers[11]};
  switch (what[0]) {
    case 'f': return cuda_forward(a, nullptr);
    case 's': return cuda_backward_samples(a, w, nullptr);
    case 'v': return cuda_backward_value(a, nullptr);
    case 'd': return cuda_backward_value_deterministic(a, w, static_cast<long long*>(pointers[12]), nullptr);
    default: return -1;
  }
}

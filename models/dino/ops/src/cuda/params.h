// What every CUDA kernel is handed, by value: a call's sizes and pointers, and how queries fall into tiles.
#pragma once

#include "../common/arguments.h"

namespace msda {

// Queries are handled in tiles. When there is one query per token, as in the encoder, a tile is a square of its
// level: neighbours sample the same pixels, which then come from the first-level cache.
struct Tiling {
  int32_t tiles;                    // of one image
  int32_t squares;                  // 1: squares of levels; 0: runs of queries
  int32_t first[kMostLevels];       // first tile of each level
  int32_t columns[kMostLevels];     // tiles in a row of each level
};

struct Params {
  Sizes sizes;
  Form form;
  bool pixel_gradients;
  int32_t turns;  // over the channels of a head
  const void* value;
  const void* positions;
  const void* attention;
  const void* reference;
  const bool* mask;
  void* output;
  const void* grad_output;
  void* grad_value;      // (B, S, H, C) A: sums; in the deterministic mode 64-bit integers
  void* grad_positions;
  void* grad_attention;
  void* weight_gradients;  // (B, Q, H, L * P) A, or null: gradients of weights while their softmax is not known
  const void* bounds;      // deterministic mode: (2) A, largest |grad_output| and |weight|, or |largest logit|
  Level levels[kMostLevels];
  Tiling tiling;
};

constexpr int kTileWidth = 8;

}  // namespace msda

// Which instantiation of a kernel a call needs.
#pragma once

#include "params.h"

namespace msda {

// Samples that a group of lanes prepares at a time.
constexpr int kChunk = 16;

// A group of lanes serves one query and head; each lane holds kVector channels, 16 bytes of them where the layout
// allows. Wider heads take several turns.
template <int kVector_, int kGroup_, typename Index_>
struct Variant {
  static constexpr int kVector = kVector_;
  static constexpr int kGroup = kGroup_;
  using Index = Index_;  // of a row of kVector numbers in one image's value
  static constexpr int kThreads = kGroup == 2 ? 128 : 256;
  static constexpr int kPairs = kThreads / kGroup;
  static constexpr int kRounds = kChunk / kGroup;  // samples that a lane prepares
};

}  // namespace msda

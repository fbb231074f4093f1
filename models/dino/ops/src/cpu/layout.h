// The working copy that the CPU kernels sample from: the levels of one head, each with a border of zeros.
//
// In the tensors the pixels of one head lie heads * channels apart, so that a walk over one head uses an eighth
// of the cache's sets. The copy is dense. Its border makes every pixel around every sample an ordinary one, so
// that no sample needs a test.
#pragma once

#include <vector>

#include "kernel.h"
#include "vector.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {

// A level of height h and width w has h + 3 rows of w + 1 pixels: two rows of zeros, then rows that begin with
// one zero, then a row of zeros and one more pixel. Pixel (x, y) stands at origin + y * pitch + x; the pixel
// behind a row's end is the zero that begins the next row, and the 2 x 2 pixels from (-1, -2) are zero.
struct PackedLevel {
  int32_t height, width, token;
  int32_t pitch;
  int64_t begin, end;  // all pixels of the level in the copy
  int64_t origin;      // pixel (0, 0)
};

template <typename A>
class Layout {
 public:
  explicit Layout(const Arguments& arguments)
      : stride_((arguments.sizes.channels + kWidth<A> - 1) / kWidth<A> * kWidth<A>) {
    for (int l = 0; l < arguments.sizes.levels; ++l) {
      const Level& level = arguments.levels[l];
      const int32_t pitch = level.width + 1;
      const int64_t end = pixels_ + int64_t(level.height + 3) * pitch + 1;
      levels_.push_back({level.height, level.width, level.start, pitch, pixels_, end, pixels_ + 2 * pitch + 1});
      pixels_ = end;
      rows_ += level.height + 3;
    }
  }

  const PackedLevel& level(int l) const { return levels_[l]; }
  int stride() const { return stride_; }                 // numbers per pixel: channels in whole vectors
  int64_t rows() const { return rows_; }                 // of all levels, with their borders
  int64_t numbers() const { return pixels_ * stride_; }  // of one head

  // Which level and y (-2 .. height) row number `row` is.
  std::pair<const PackedLevel*, int32_t> row(int64_t row) const {
    for (const PackedLevel& level : levels_) {
      if (row < level.height + 3) return {&level, int32_t(row) - 2};
      row -= level.height + 3;
    }
    return {nullptr, 0};
  }

 private:
  int stride_;
  std::vector<PackedLevel> levels_;
  int64_t pixels_ = 0, rows_ = 0;
};

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

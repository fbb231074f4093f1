// From the inputs of one cell (a query and a head) to its samples: pixels, fractions, attention.
// Samples go in blocks of 16 lanes, so that their arithmetic is a handful of vector instructions.
#pragma once

#include "../common/sampling.h"
#include "layout.h"
#include "numbers.h"
#include "softmax.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {

// Queries between a prefetch and its use. Neighbouring queries of one head lie a stride apart that the
// hardware does not foresee.
constexpr int64_t kAhead = 8;

// The level of every lane. Lanes behind the last sample have an empty level and so point at zeros.
template <typename A>
struct alignas(64) Table {
  A width[kLanes], height[kLanes];
  int32_t pitch[kLanes], origin[kLanes], level[kLanes];
  int count;  // samples in this block
};

template <typename A>
struct alignas(64) Block {
  A fx[kLanes], fy[kLanes], attention[kLanes];
  int32_t pixel[kLanes];  // of the upper left corner, in the working copy
};

// Built once per thread and range of cells.
template <typename A>
class Sampler {
 public:
  Sampler(const Arguments& arguments, const Layout<A>& layout)
      : arguments_(arguments), columns_(arguments.form == Form::kBoxes ? 4 : 2),
        unit_(A(0.5) / A(arguments.sizes.points)) {
    const Sizes& s = arguments.sizes;
    const int blocks = (s.samples() + kLanes - 1) / kLanes;
    tables_.resize(blocks);
    blocks_.resize(blocks);
    attention_.resize(size_t(blocks) * kLanes);
    positions_.resize(size_t(blocks) * kLanes * 2);
    for (int k = 0; k < blocks * kLanes; ++k) {
      Table<A>& table = tables_[k / kLanes];
      const int lane = k % kLanes;
      const bool used = k < s.samples();
      const int l = used ? k / s.points : 0;
      const PackedLevel& level = layout.level(l);
      table.width[lane] = used ? A(level.width) : A(0);
      table.height[lane] = used ? A(level.height) : A(0);
      table.pitch[lane] = level.pitch;
      table.origin[lane] = int32_t(level.origin);
      table.level[lane] = l;
      table.count = used ? lane + 1 : table.count;
    }
  }

  int blocks() const { return int(tables_.size()); }
  const Block<A>& block(int i) const { return blocks_[i]; }
  const Table<A>& table(int i) const { return tables_[i]; }
  A unit() const { return unit_; }

  // Fills the blocks of one cell.
  void prepare(int64_t batch, int64_t query, int64_t head) {
    const Sizes& s = arguments_.sizes;
    const int64_t first = ((batch * s.queries + query) * s.heads + head) * s.samples();
    const int64_t ahead = first + kAhead * s.heads * s.samples();
    const Number given = arguments_.given();
    prefetch(given, arguments_.attention, ahead, s.samples());
    prefetch(given, arguments_.positions, 2 * ahead, 2 * s.samples());
    read(given, arguments_.attention, first, s.samples(), attention_.data());
    read(given, arguments_.positions, 2 * first, 2 * s.samples(), positions_.data());
    if (arguments_.form != Form::kLocations) {
      for (int k = s.samples(); k < blocks() * kLanes; ++k) attention_[k] = -INFINITY;
      softmax(attention_.data(), blocks());
    }
    const A* reference = reference_of(batch, query);
    for (int i = 0; i < blocks(); ++i) {
      std::memcpy(blocks_[i].attention, &attention_[i * kLanes], sizeof(blocks_[i].attention));
      locate(tables_[i], &positions_[2 * i * kLanes], reference, blocks_[i]);
    }
  }

  // (L, 2 or 4) of one query; null in the plain form.
  const A* reference_of(int64_t batch, int64_t query) const {
    const Sizes& s = arguments_.sizes;
    if (arguments_.form == Form::kLocations) return nullptr;
    return static_cast<const A*>(arguments_.reference) + (batch * s.queries + query) * s.levels * columns_;
  }

 private:
  // Its own function with arguments that do not overlap, because only then every loop becomes vector code.
  __attribute__((noinline)) void locate(const Table<A>& __restrict table, const A* __restrict positions,
                                        const A* __restrict reference, Block<A>& __restrict block) const {
    alignas(64) A px[kLanes], py[kLanes], r[4][kLanes];
    for (int k = 0; k < kLanes; ++k) px[k] = positions[2 * k], py[k] = positions[2 * k + 1];
    if (arguments_.form == Form::kLocations) {
      for (int k = 0; k < kLanes; ++k) {
        px[k] = pixel_of_location(px[k], table.width[k]);
        py[k] = pixel_of_location(py[k], table.height[k]);
      }
    } else if (arguments_.form == Form::kPoints) {
      for (int k = 0; k < kLanes; ++k) {
        for (int j = 0; j < 2; ++j) r[j][k] = reference[table.level[k] * 2 + j];
      }
      for (int k = 0; k < kLanes; ++k) {
        px[k] = pixel_of_point(r[0][k], px[k], table.width[k]);
        py[k] = pixel_of_point(r[1][k], py[k], table.height[k]);
      }
    } else {
      for (int k = 0; k < kLanes; ++k) {
        for (int j = 0; j < 4; ++j) r[j][k] = reference[table.level[k] * 4 + j];
      }
      for (int k = 0; k < kLanes; ++k) {
        px[k] = pixel_of_box(r[0][k], r[2][k], px[k], unit_, table.width[k]);
        py[k] = pixel_of_box(r[1][k], r[3][k], py[k], unit_, table.height[k]);
      }
    }
    for (int k = 0; k < kLanes; ++k) {
      const bool near = touches(px[k], py[k], table.width[k], table.height[k]);
      const A x = near ? px[k] : A(-1), y = near ? py[k] : A(-2);
      const int32_t left = floor_of(x), top = floor_of(y);
      block.fx[k] = x - A(left);
      block.fy[k] = y - A(top);
      block.pixel[k] = table.origin[k] + top * table.pitch[k] + left;
    }
  }

  const Arguments& arguments_;
  int columns_;
  A unit_;
  std::vector<Table<A>> tables_;
  std::vector<Block<A>> blocks_;
  std::vector<A> attention_, positions_;
};

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

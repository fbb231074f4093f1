// How the walks count their work.
#pragma once

#include "layout.h"

namespace msda {
namespace MSDA_ISA_NAMESPACE {

// One query and head.
template <typename A>
struct Cell {
  int64_t batch, query, head;
  int64_t index;  // in (B, Q, H)
  A* copy;        // working copy of its (batch, head)

  Cell(const Arguments& arguments, const Group& group, const Layout<A>& layout, int64_t slot, int64_t query)
      : batch((group.first + slot) / arguments.sizes.heads), query(query),
        head((group.first + slot) % arguments.sizes.heads),
        index((batch * arguments.sizes.queries + query) * arguments.sizes.heads + head),
        copy(static_cast<A*>(group.copies) + slot * layout.numbers()) {}
};

}  // namespace MSDA_ISA_NAMESPACE
}  // namespace msda

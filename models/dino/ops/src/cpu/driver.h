// Runs the CPU kernels over a whole call: memory and threads.
#pragma once

#include "../common/arguments.h"

namespace msda {

void cpu_forward(const Arguments& arguments);
void cpu_backward(const Arguments& arguments);

}  // namespace msda

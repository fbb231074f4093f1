#!/usr/bin/env bash
# Compiles all that is CUDA for sm_80 and sm_90 (no GPU needed): the op's kernels, whose registers, spills and 16-byte
# loads are checked, and the kernel of the benchmark. Skips with a line where there is no nvcc.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
[ -x "$python" ] || python=python3
"$python" -m models.dino.ops.check_cuda
"$python" -m benchmarks.msda.plain

#!/usr/bin/env bash
# Compiles all CUDA code for sm_80 and sm_90 (no GPU needed): the op's kernels, with checks of registers, spills and 16-byte
# loads, and the benchmark's kernel. Without nvcc it prints one line and skips.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
[ -x "$python" ] || python=python3
"$python" -m models.dino.ops.check_cuda
"$python" -m benchmarks.msda.plain

#!/usr/bin/env bash
# Compiles the CUDA kernels for sm_80 and sm_90 (no GPU needed) and checks registers, spills and 16-byte loads.
# Skips with a line where there is no nvcc that fits PyTorch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" -m models.dino.ops.check_cuda

#!/usr/bin/env bash
# On a machine with a GPU, in under 9 minutes: builds the op, runs the GPU tests and compute-sanitizer, the benchmark and
# a short training; writes benchmarks/results/DATE_GPU.{json,md}.
#
#   bash scripts/gpu_check.sh               one line and status 2 where there is no GPU
#   bash scripts/gpu_check.sh --dry_run     the same steps, small, on the CPU
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
exec .venv/bin/python tools/gpu_check.py "$@"

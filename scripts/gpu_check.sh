#!/usr/bin/env bash
# Checks a machine with a GPU in under 9 minutes: builds the op, runs the GPU tests, compute-sanitizer, the benchmark and a
# short training, and writes benchmarks/results/DATE_GPU.{json,md}.
#
#   bash scripts/gpu_check.sh               without a GPU: one line and exit status 2
#   bash scripts/gpu_check.sh --dry_run     the same steps, small, on the CPU
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
exec .venv/bin/python tools/gpu_check.py "$@"

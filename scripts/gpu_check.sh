#!/usr/bin/env bash
# Checks a machine with a GPU in under 9 minutes: builds the op, runs the GPU tests, the benchmarks (training step, inference,
# op), a short training and compute-sanitizer, and writes benchmarks/results/DATE_GPU.{json,md}, with what it left out.
#
#   bash scripts/gpu_check.sh                   without a GPU: one line and exit status 2
#   bash scripts/gpu_check.sh --dry_run         the same steps, small, on the CPU
#   bash scripts/gpu_check.sh --only memcheck   what an earlier call left out
#   python tools/gpu_check.py ...               with the packages of an environment that is there, without a network
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
exec .venv/bin/python tools/gpu_check.py "$@"

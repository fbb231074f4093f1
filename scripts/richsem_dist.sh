#!/usr/bin/env bash
# Trains or evaluates on N GPUs, or in N CPU processes if there is no GPU:
#   bash scripts/richsem_dist.sh N [arguments of main.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR; more in docs/cluster.md.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

python=python
if [ -x "$root/.venv/bin/python" ]; then python="$root/.venv/bin/python"; fi
# Make waiting threads sleep: with more threads than free cores, spinning threads block each other.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m tools.launch "${1:-}" "$root/main.py" "${@:2}"

"""One side in a process of its own; `benchmarks/sides.py` starts it.

Two revisions have the same package names, so they cannot share a process. This one stands in the folder of a
revision, whose packages it imports; the folder `benchmarks` of this revision is next on its path. The first
line of standard input is the `Spec` as JSON; the answer has what the first step returned and held. Then each
line is a question, answered by one line:

    run     one step: {"seconds", "cpu_seconds", "value"}
    parts   one step, in parts: {part: seconds}
    counts  one step: {"operators", "casts", "scalar reads"}, and on CUDA {"kernels", "waits"}
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

# Idle OpenMP threads sleep instead of spinning: the other side's process needs the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from operators import Operators
from protocol import peak_bytes, release_free_memory, reset_peak, resident_bytes

from .parts import Parts
from .spec import Spec


class Worker:
    """A built side, asked one thing after another."""

    def __init__(self, spec: Spec) -> None:
        torch.manual_seed(0)
        if spec.threads:
            torch.set_num_threads(spec.threads)
        self.spec = spec
        self.cuda = spec.device == "cuda"
        if spec.side == "richsem":
            from .richsem import RichSem as Builder
        else:
            from .deformable_detr import Transformers as Builder
        self.side: Any = Builder(spec)

    def synchronise(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def first(self) -> dict[str, Any]:
        """The first step, and the most memory that it held above what was there."""
        release_free_memory()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        else:
            before = resident_bytes()
            reset_peak()
        value = self.side.run()
        self.synchronise()
        peak = torch.cuda.max_memory_allocated() if self.cuda else peak_bytes()
        return {"value": float(value), "bytes": max(peak - before, 0), "precision": self.side.precision}

    def answer(self, question: str) -> dict[str, Any]:
        return {"run": self._run, "parts": self._parts, "counts": self._counts}[question]()

    def _run(self) -> dict[str, Any]:
        self.synchronise()
        wall, cpu = time.perf_counter(), time.process_time()
        value = self.side.run()
        self.synchronise()
        return {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "value": float(value),
        }

    def _parts(self) -> dict[str, Any]:
        parts = Parts(self.synchronise)
        optimizer = getattr(self.side, "optimizer", None) if self.spec.what == "step" else None
        with parts.watching(self.side.modules(), optimizer):
            self.side.run()
        return dict(parts.seconds)

    def _counts(self) -> dict[str, Any]:
        with Operators() as operators:
            self.side.run()
        counts = operators.counts
        result = {
            "operators": counts.total(),
            "casts": counts["aten::_to_copy"],
            "scalar reads": counts["aten::_local_scalar_dense"],
        }
        if self.cuda:
            from torch.profiler import ProfilerActivity, profile

            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
                self.side.run()
            events = found.key_averages()
            result["kernels"] = sum(e.count for e in events if e.device_type.name == "CUDA")
            result["waits"] = sum(e.count for e in events if "Synchronize" in e.key)
        return result


def main() -> None:
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    spec = Spec(**json.loads(sys.stdin.readline()))
    worker = Worker(spec)
    say(worker.first())
    for line in sys.stdin:
        say(worker.answer(line.strip()))


if __name__ == "__main__":
    main()

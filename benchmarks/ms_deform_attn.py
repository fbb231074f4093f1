"""Deformable attention: time and peak extra memory, ours beside others; the errors of all against float64.

    python benchmarks/ms_deform_attn.py --device cpu|cuda [--json OUT] [--only 'encoder/*']

Cases are WORKLOAD/LOCATIONS/PASS, in the plain form and float32; `/fused` hands over raw offsets and logits,
`/bf16` in 16 bit. Opponents compute from locations that PyTorch makes for them within the measured time, and
in float32, but for deformops, which takes 16 bit too. One that cannot run here is left out; the notes say
why. Extra memory is the peak above inputs, outputs and gradients.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from benchmarks.msda.inputs import LOCAL, UNIFORM, WORKLOADS, Inputs, make_inputs
from benchmarks.msda.opponents import OURS, SIXTEEN_BIT, Attend, opponents, ours, require_kernels
from benchmarks.protocol import (
    MEMORY,
    TIME,
    Deadline,
    Row,
    add_time_limit,
    argument_parser,
    in_own_process,
    interleaved,
    report,
    wanted,
)

FORWARD, BOTH = "forward", "forward+backward"
# Input sets that take turns, so that none is found in a cache where a network would not have it.
_ROTATED = 4
# Calls between two looks at the clock: a GPU's queue must not run empty while Python looks.
_CALLS = {"cpu": 1, "cuda": 5}


@dataclass(frozen=True)
class Case:
    """One line of the report."""

    workload: str
    where: str
    backward: bool
    fused: bool
    bf16: bool

    @property
    def name(self) -> str:
        suffix = "/bf16" * self.bf16 + "/fused" * self.fused
        return f"{self.workload}/{self.where}/{BOTH if self.backward else FORWARD}{suffix}"

    def inputs(self, device: str, batch: int, seed: int = 0) -> Inputs:
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        made = make_inputs(
            WORKLOADS[self.workload],
            self.where,
            fused=self.fused,
            dtype=dtype,
            batch=batch,
            seed=seed,
            device=device,
        )
        return made.trainable() if self.backward else made


def cases() -> Iterator[Case]:
    for workload in WORKLOADS:
        for where in (LOCAL, UNIFORM):
            for fused, bf16 in ((False, False), (True, False), (True, True)):
                for backward in (False, True):
                    yield Case(workload, where, backward, fused, bf16)


def run(attend: Attend, inputs: Inputs, backward: bool) -> tuple[Tensor, ...]:
    """The output and, if asked for, the gradients of what it was made from."""
    if not backward:
        with torch.no_grad():
            return (attend(inputs),)
    output = attend(inputs)
    return output, *torch.autograd.grad(output, inputs.leaves, torch.ones_like(output))


def contenders(device: str) -> dict[str, Attend]:
    return {OURS: ours, **opponents(device)[0]}


def inputs_for(name: str, inputs: Inputs) -> Inputs:
    return inputs if name in SIXTEEN_BIT else inputs.to(torch.float32)


def time_case(case: Case, attends: dict[str, Attend], device: str, batch: int, repeats: int) -> list[Row]:
    sets = [case.inputs(device, batch, seed) for seed in range(_ROTATED)]

    def turn(name: str) -> Callable[[], None]:
        rotating = cycle([inputs_for(name, inputs) for inputs in sets])

        def work() -> None:
            for _ in range(_CALLS[device]):
                run(attends[name], next(rotating), case.backward)

        return work

    synchronise = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    seconds = interleaved(
        {name: turn(name) for name in attends}, repeats, warmup=_ROTATED, synchronise=synchronise
    )
    mine = seconds[OURS] / _CALLS[device]
    return [
        Row(case.name, name, TIME, mine, seconds[name] / _CALLS[device]) for name in attends if name != OURS
    ]


# What a process that measures memory has ready.
_prepared: dict[str, Any] = {}


def prepare(case: Case, name: str, batch: int) -> None:
    """Inputs and libraries are there before memory is counted."""
    _prepared["attend"] = contenders("cpu")[name]
    _prepared["inputs"] = inputs_for(name, case.inputs("cpu", batch))
    small = Case("mini_decoder", case.where, case.backward, case.fused, case.bf16)
    run(_prepared["attend"], inputs_for(name, small.inputs("cpu", 1)), case.backward)


def work(backward: bool) -> int:
    """One pass. Returns bytes of its results."""
    return _bytes(run(_prepared["attend"], _prepared["inputs"], backward))


def _bytes(results: tuple[Tensor, ...]) -> int:
    return sum(x.numel() * x.element_size() for x in results)


def extra_memory(case: Case, name: str, attend: Attend, device: str, batch: int) -> int:
    """Peak bytes above inputs and results: in a process of its own; on a GPU, PyTorch's allocator knows."""
    if device == "cpu":
        ready = functools.partial(prepare, case, name, batch)
        measured = in_own_process(work, case.backward, prepare=ready)
        return max(measured.peak_bytes - measured.value, 0)
    inputs = inputs_for(name, case.inputs(device, batch))
    run(attend, inputs, case.backward)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = _bytes(run(attend, inputs, case.backward))
    return max(torch.cuda.max_memory_allocated() - before - results, 0)


def memory_rows(case: Case, attends: dict[str, Attend], device: str, batch: int) -> list[Row]:
    extra = {name: extra_memory(case, name, attend, device, batch) for name, attend in attends.items()}
    return [Row(case.name, name, MEMORY, extra[OURS], extra[name]) for name in attends if name != OURS]


def errors(case: Case, attends: dict[str, Attend], device: str) -> dict[str, list[float]]:
    """Largest error over largest value against float64, of the output and the three gradients."""
    inputs = case.inputs(device, batch=1)
    right = run(attends["grid_sample"], inputs.to(torch.float64), case.backward)
    found = {}
    for name, attend in attends.items():
        results = run(attend, inputs_for(name, inputs), case.backward)
        found[name] = [
            float(f"{((x.double() - y).abs().max() / y.abs().max()).item():.2e}")
            for x, y in zip(results, right, strict=True)
        ]
    return found


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--batch", type=int, help="images a call; default: 1 on the CPU, 2 on a GPU")
    parser.add_argument("--repeats", type=int, help="turns; default: 5 for the large CPU cases, else 30")
    add_time_limit(parser)
    options = parser.parse_args()
    device, batch = options.device, options.batch or {"cpu": 1, "cuda": 2}[options.device]
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device cuda, but there is no GPU")
    if options.threads:
        torch.set_num_threads(options.threads)
    notes: dict[str, Any] = {"batch": batch, "kernels": require_kernels(device)}
    present, absent = opponents(device)
    for name, why in absent.items():
        print(f"{name}: left out, {why}")
    attends, rows, deadline = {OURS: ours, **present}, [], Deadline(options.time_limit)
    for case in cases():
        if not wanted(case.name, options.only) or not deadline.allows(case.name):
            continue
        large = device == "cpu" and case.workload == "encoder"
        rows += time_case(case, attends, device, batch, options.repeats or (5 if large else 30))
        if case.workload in ("encoder", "decoder"):
            if device == "cuda" or not case.fused:
                rows += memory_rows(case, attends, device, batch)
            if case.backward:
                notes[f"errors {case.name}: output, value, positions, attention"] = errors(
                    case, attends, device
                )
        print(f"{case.name}: done", file=sys.stderr)
    notes["left out"] = absent | deadline.left_out
    report(rows, device=device, packages=("transformers", "deformops"), json_path=options.json, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())

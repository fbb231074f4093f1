"""`python -m models.dino.ops.check_cuda`: compiles the CUDA kernels without a GPU and reads the machine code.

Fails when they do not compile for sm_80 and sm_90 or the library does not load, when a kernel spills or
holds more than its share of registers (64 forward, 96 backward; float64 is exempt), or when value and
gradients are not read 16 bytes at a time. Where there is no nvcc, or no CUDA in PyTorch, it says so and
succeeds; an nvcc that does not run or fit fails.
"""

import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from . import compiler, library

ARCHITECTURES = ["8.0", "9.0"]
# Kernel: most registers, how many 16-byte loads its walk over the corners needs at least.
KERNELS = {"forward_kernel": (64, 4), "backward_samples_kernel": (96, 4), "backward_value_kernel": (96, 1)}

_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>sm_\d+)'.*?(?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)
_TYPES = {"f": "float32", "d": "float64", "NS_4HalfE": "float16", "NS_8BFloat16E": "bfloat16"}
# The mangled template arguments: number type, numbers per lane, lanes per query and head.
_VARIANT = re.compile(
    r"kernelI(?P<type>NS_\d+\w+?E|[fd])(?:NS_7VariantI)?Li(?P<vector>\d+)ELi(?P<group>\d+)E"
)


@dataclass(frozen=True)
class Entry:
    """One kernel as ptxas made it."""

    name: str
    kernel: str
    dtype: str
    vector: int
    group: int
    arch: str
    registers: int
    spilled: int

    @property
    def title(self) -> str:
        width = f"width {self.vector * self.group}" if self.vector > 1 else "any width"
        return f"{self.kernel} {self.dtype} {width} {self.arch}"


def read_report(log: str) -> list[Entry]:
    """The entries of `KERNELS` in what ptxas -v printed."""
    entries = []
    for match in _ENTRY.finditer(log):
        kernel = next((kernel for kernel in KERNELS if kernel in match["name"]), None)
        variant = _VARIANT.search(match["name"])
        if kernel is None or variant is None:
            continue
        spilled = int(match["stores"]) + int(match["loads"])
        dtype = _TYPES[variant["type"]]
        vector, group = int(variant["vector"]), int(variant["group"])
        registers = int(match["registers"])
        entries.append(Entry(match["name"], kernel, dtype, vector, group, match["arch"], registers, spilled))
    return entries


def violations(entries: list[Entry], wide_loads: dict[tuple[str, str], int]) -> list[str]:
    """What is wrong, a line each.

    Args:
        entries: of all architectures.
        wide_loads: 16-byte loads of each (mangled name, architecture).
    """
    found = []
    for entry in entries:
        most, loads = KERNELS[entry.kernel]
        if entry.dtype == "float64":
            continue
        if entry.spilled:
            found.append(f"{entry.title}: spills {entry.spilled} bytes")
        if entry.registers > most:
            found.append(f"{entry.title}: {entry.registers} registers, more than {most}")
        if entry.vector > 1 and wide_loads.get((entry.name, entry.arch), 0) < loads:
            found.append(f"{entry.title}: fewer than {loads} loads of 16 bytes")
    for arch in ARCHITECTURES:
        sm = f"sm_{arch.replace('.', '')}"
        for kernel in KERNELS:
            if not any(entry.kernel == kernel and entry.arch == sm for entry in entries):
                found.append(f"{kernel} was not compiled for {sm}")
    return found


def find_disassembler() -> str | None:
    """cuobjdump of the toolkit, or the one that comes with Triton and so with PyTorch."""
    beside = compiler.find_nvcc().parent / "cuobjdump"
    triton = Path(torch.__file__).parent.parent / "triton/backends/nvidia/bin/cuobjdump"
    candidates = [shutil.which("cuobjdump"), str(beside), str(triton)]
    return next((path for path in candidates if path and Path(path).is_file()), None)


def count_wide_loads(disassembler: str, objects: list[Path]) -> dict[tuple[str, str], int]:
    """Loads of 16 bytes from global memory in each (mangled name, architecture)."""
    counts: dict[tuple[str, str], int] = {}
    for path in objects:
        step = compiler.Step((disassembler, "-sass", str(path)), path)
        name = arch = ""
        for line in compiler.run(step).splitlines():
            if match := re.search(r"arch = (sm_\d+)", line):
                arch = match[1]
            elif match := re.search(r"Function : (\w+)", line):
                name = match[1]
            elif re.search(r"\bLDG\.E\.128\b", line):
                counts[name, arch] = counts.get((name, arch), 0) + 1
    return counts


def compile_all(folder: Path) -> tuple[list[Entry], dict[tuple[str, str], int]]:
    """Every kernel as ptxas made it, and its 16-byte loads. Raises `compiler.BuildError`."""
    disassembler = find_disassembler()
    if disassembler is None:
        raise compiler.BuildError("no cuobjdump to read machine code with (CUDA and Triton bring it)")
    steps, link = compiler.cuda_steps(folder, ARCHITECTURES, ("-Xptxas", "-v"))
    with ThreadPoolExecutor() as pool:
        logs = list(pool.map(compiler.run, steps))
    compiler.run(link)
    try:
        torch.ops.load_library(link.output)
        library.check_kernels("cuda")
    except (OSError, RuntimeError) as error:
        raise compiler.BuildError(f"the library does not load: {error}") from error
    objects = [step.output for step in steps if not step.output.stem.startswith("binding")]
    return read_report("\n".join(logs)), count_wide_loads(disassembler, objects)


def main() -> int:
    """Compile, report, and return the exit status."""
    started = time.monotonic()
    try:
        compiler.find_nvcc()
        with tempfile.TemporaryDirectory() as folder:
            entries, loads = compile_all(Path(folder))
    except compiler.AbsentError as error:
        print(f"CUDA kernels not checked: {error}")
        return 0
    except compiler.BuildError as error:
        print(f"error: {error}\n{error.log}".rstrip())
        return 1
    for entry in sorted(entries, key=lambda entry: entry.title):
        wide = loads.get((entry.name, entry.arch), 0)
        print(
            f"{entry.title:55s} {entry.registers:3d} registers, {entry.spilled} bytes spilled, "
            f"{wide} loads of 16 bytes"
        )
    found = violations(entries, loads)
    for line in found:
        print(f"error: {line}")
    seconds = time.monotonic() - started
    print(f"{len(entries)} kernels in {seconds:.0f} s, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Compiles the kernels: one shared library for the CPU, one for CUDA.

Knows nothing of the rest of the package, so that `setup.py` can use it before anything is installed.
Calls the compilers directly: no ninja, no Python headers, no setuptools.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

SOURCES = Path(__file__).resolve().parent / "src"
# What setup.py installs.
PACKAGE = "richsem_ops"
LIBRARY_NAMES = {"cpu": "libms_deform_attn_cpu.so", "cuda": "libms_deform_attn_cuda.so"}

# Instruction sets of kernels.cpp: macro that select.cpp looks for, flags.
_X86_SETS = {
    "AVX512": ("MSDA_WITH_AVX512", "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma"),
    "AVX2": ("MSDA_WITH_AVX2", "-mavx2 -mfma"),
    "DEFAULT": ("MSDA_WITH_BASELINE", ""),
}
_OTHER_SETS = {"DEFAULT": ("MSDA_WITH_BASELINE", "-O3")}

# Without --gpu-architecture of a GPU at hand: what trains detectors today, and PTX for what comes after.
_DEFAULT_ARCHITECTURES = "7.5;8.0;8.6;8.9;9.0+PTX"

# Scratch folders of builds; one that a killed process leaves behind is removed by the next build.
SCRATCH = "building-"
# Runs its arguments, and kills them and all that they started when its standard input closes: with the
# process that holds the other end of the pipe, however that ends.
_TIED = """
exec 3<&0 </dev/null
"$@" 3<&- &
compiler=$!
{ read -r _; kill -s KILL 0; } <&3 >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait $compiler
status=$?
kill $watcher 2>/dev/null
exit $status
"""


class BuildError(Exception):
    """Compilation is not possible or failed. The message is one line; `log` is what the compiler said."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class AbsentError(BuildError):
    """There is nothing to compile with or for, as opposed to something that does not work."""


@dataclass(frozen=True)
class Step:
    """One compiler call that makes `output`."""

    command: tuple[str, ...]
    output: Path


def source_hash(kind: str) -> str:
    """A fingerprint of the sources of one kind of device and of this file, which holds the flags."""
    folders = [SOURCES, SOURCES / "common", SOURCES / kind]
    sources = sorted(path for folder in folders for path in folder.glob("*.*"))
    digest = hashlib.sha256()
    bindings = {f"binding_{other}" for other in LIBRARY_NAMES if other != kind}
    for path in [*(path for path in sources if path.stem not in bindings), Path(__file__)]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build_key(kind: str) -> dict[str, str]:
    """All that a build depends on. A library whose key differs is not loaded."""
    key = {"source": source_hash(kind), "torch": torch.__version__, "machine": platform.machine()}
    if kind == "cuda":
        key["cuda"] = str(torch.version.cuda)
    return key


def instruction_sets() -> dict[str, tuple[str, str]]:
    """All instruction sets that kernels.cpp can be compiled for on this kind of processor."""
    return _X86_SETS if platform.machine() in ("x86_64", "AMD64") else _OTHER_SETS


def local_instruction_set() -> str:
    """The one PyTorch uses on this processor (and `ATEN_CPU_CAPABILITY` allows)."""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if capability in instruction_sets() else "DEFAULT"


def find_host_compiler() -> str:
    """Path of a C++ compiler: `$CXX`, else the first of c++, g++, clang++. Raises `BuildError`."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise BuildError(f"no C++ compiler found (looked for {', '.join(names)})")


def find_nvcc() -> Path:
    """Path of an nvcc that fits the CUDA of PyTorch. Raises `BuildError`.

    `$CUDA_HOME` or `$CUDA_PATH` decides if set; else the PATH, then /usr/local/cuda.
    """
    if torch.version.cuda is None:
        raise AbsentError("this PyTorch is built without CUDA")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        nvcc = Path(home) / "bin" / "nvcc"
    else:
        nvcc = Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc")
    if not nvcc.is_file():
        raise AbsentError(f"no nvcc found at {nvcc} (set CUDA_HOME to a CUDA toolkit)")
    try:
        result = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{nvcc} does not run: {error.strerror}") from error
    match = re.search(r"release (\d+)\.(\d+)", result.stdout)
    if result.returncode or match is None:
        raise BuildError(f"{nvcc} does not run: {_last_line(result.stderr or result.stdout)}")
    if match[1] != torch.version.cuda.split(".")[0]:
        raise BuildError(
            f"{nvcc} is CUDA {match[1]}.{match[2]} but PyTorch is built for {torch.version.cuda}"
        )
    return nvcc


def architectures() -> list[str]:
    """GPU architectures to compile for, such as ["8.0", "9.0+PTX"].

    `$TORCH_CUDA_ARCH_LIST` if set, else those of the GPUs at hand, else a list of common ones. Raises
    `BuildError` on an entry that is not a number.
    """
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if not wanted and torch.cuda.is_available():
        capabilities = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        return [f"{major}.{minor}" for major, minor in sorted(capabilities)]
    entries = (wanted or _DEFAULT_ARCHITECTURES).replace(";", " ").replace(",", " ").split()
    for entry in entries:
        if not re.fullmatch(r"\d+\.\d[af]?(\+PTX)?", entry):
            raise BuildError(f"TORCH_CUDA_ARCH_LIST: {entry!r} is not an architecture such as 9.0 or 9.0+PTX")
    return entries


def runs_on(entries: list[str], capability: tuple[int, int]) -> bool:
    """Whether code for these architectures runs on a GPU of this capability."""
    for entry in entries:
        major, minor = map(int, re.findall(r"^(\d+)\.(\d)", entry)[0])
        exact = entry.removesuffix("+PTX")[-1] in "af"
        if (major, minor) == capability or (not exact and major == capability[0] and minor < capability[1]):
            return True
        if entry.endswith("+PTX") and not exact and (major, minor) < capability:
            return True
    return False


def architecture_flags(entries: list[str]) -> list[str]:
    """nvcc's flags for entries such as "9.0+PTX"."""
    flags = []
    for entry in entries:
        number = entry.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if entry.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def build(kind: str, directory: Path, sets: list[str] | None = None) -> Path:
    """Compiles the library of one kind of device into `directory`.

    Args:
        kind: "cpu" or "cuda".
        directory: where the library goes; made if absent. The library appears at once and whole.
        sets: instruction sets for "cpu"; None: the local one.

    Returns:
        Path of the library.

    Raises:
        BuildError: no compiler, a wrong one, or one that reports an error.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=SCRATCH) as scratch:
        work = Path(scratch)
        if kind == "cpu":
            steps, link = _cpu_steps(work, sets or [local_instruction_set()])
        else:
            steps, link = cuda_steps(work, architectures())
        # The pipe closes before the pool waits for its threads, so that Ctrl-C ends the compilers.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, _pipe() as tied:
            list(pool.map(lambda step: _run(step, tied), steps))
        run(link)
        library = directory / LIBRARY_NAMES[kind]
        stamp = work / _stamp(library).name
        stamp.write_text(_checksum(link.output) + "\n")
        os.replace(link.output, library)
        os.replace(stamp, _stamp(library))
    return library


def is_whole(library: Path) -> bool:
    """Whether a library is there, byte by byte as `build` made it.

    To be asked before it is loaded: reading a cut library is a bus error, which nothing can catch.
    """
    try:
        return _stamp(library).read_bytes().strip() == _checksum(library).encode()
    except OSError:
        return False


def _stamp(library: Path) -> Path:
    return library.with_name(f"{library.name}.sha256")


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(step: Step) -> str:
    """Carries out one step; returns what the compiler said. Raises `BuildError`.

    The compiler ends with this process, however this process ends.
    """
    with _pipe() as tied:
        return _run(step, tied)


@contextmanager
def _pipe() -> Iterator[int]:
    """The reading end of a pipe that closes with the block, or with this process."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def _run(step: Step, tied: int) -> str:
    command = ["/bin/sh", "-c", _TIED, "sh", *step.command]
    try:
        result = subprocess.run(
            command, stdin=tied, capture_output=True, text=True, errors="replace", start_new_session=True
        )
    except OSError as error:
        raise BuildError(f"{step.command[0]} does not run: {error.strerror}") from error
    log = result.stdout + result.stderr
    if result.returncode:
        first = next((line for line in log.splitlines() if "error" in line.lower()), _last_line(log))
        name = Path(step.command[0]).name
        raise BuildError(f"{name} failed on {step.output.stem}: {first.strip()[:200]}", log)
    return log


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


def _torch_root() -> Path:
    return Path(torch.__file__).resolve().parent


def _host_flags() -> list[str]:
    abi = int(torch.compiled_with_cxx11_abi())
    includes = [f"-I{_torch_root() / 'include'}"]
    openmp = [] if platform.system() == "Darwin" else ["-fopenmp"]
    return [
        "-std=c++17",
        "-fPIC",
        "-fvisibility=hidden",
        f"-D_GLIBCXX_USE_CXX11_ABI={abi}",
        *openmp,
        *includes,
    ]


def _link(compiler: str, objects: list[Path], output: Path, libraries: list[str]) -> Step:
    lib = _torch_root() / "lib"
    openmp = [] if platform.system() == "Darwin" else ["-fopenmp"]
    undefined = ["-undefined", "dynamic_lookup"] if platform.system() == "Darwin" else []
    names = [f"-l{name}" for name in libraries]
    command = [
        compiler,
        "-shared",
        "-o",
        str(output),
        *map(str, objects),
        f"-L{lib}",
        *names,
        *openmp,
        *undefined,
    ]
    return Step(tuple(command), output)


def _cpu_steps(work: Path, sets: list[str]) -> tuple[list[Step], Step]:
    compiler = find_host_compiler()
    known = instruction_sets()
    macros = [f"-D{known[name][0]}" for name in sets]
    # Speed lies in kernels.cpp; the rest is glue and compiles faster with less optimisation.
    glue = [compiler, *_host_flags(), "-O1"]
    fast = [
        compiler,
        "-std=c++17",
        "-fPIC",
        "-fvisibility=hidden",
        "-O3",
        "-fno-math-errno",
        "-fno-trapping-math",
    ]
    steps = []
    for source, extra in (("binding_cpu.cpp", []), ("cpu/driver.cpp", []), ("cpu/select.cpp", macros)):
        output = work / f"{Path(source).stem}.o"
        steps.append(Step((*glue, *extra, "-c", str(SOURCES / source), "-o", str(output)), output))
    for name in sets:
        output = work / f"kernels_{name}.o"
        flags = known[name][1].split()
        steps.append(Step((*fast, *flags, "-c", str(SOURCES / "cpu/kernels.cpp"), "-o", str(output)), output))
    link = _link(compiler, [step.output for step in steps], work / LIBRARY_NAMES["cpu"], ["torch_cpu", "c10"])
    return steps, link


def cuda_steps(work: Path, entries: list[str], extra: tuple[str, ...] = ()) -> tuple[list[Step], Step]:
    """Steps that compile the CUDA library into `work`, and the one that links it.

    Args:
        work: folder of the objects and the library.
        entries: architectures such as "9.0+PTX".
        extra: more flags for the kernels.
    """
    nvcc, compiler = str(find_nvcc()), find_host_compiler()
    kernel = ["-std=c++17", "-O3", "-ccbin", compiler, "-Xcompiler", "-fPIC,-fvisibility=hidden", *extra]
    flags = [nvcc, *kernel, *architecture_flags(entries)]
    steps = []
    for source in sorted((SOURCES / "cuda").glob("*.cu")):
        output = work / f"{source.stem}.o"
        steps.append(Step((*flags, "-c", str(source), "-o", str(output)), output))
    # nvcc only adds the paths of its toolkit here.
    output = work / "binding_cuda.o"
    host = ",".join(_host_flags())
    glue = [nvcc, "-ccbin", compiler, "-O1", "-Xcompiler", host]
    steps.append(Step((*glue, "-c", str(SOURCES / "binding_cuda.cpp"), "-o", str(output)), output))
    # The shared runtime is the one that PyTorch has loaded.
    link = [nvcc, "-ccbin", compiler, "-shared", "-cudart", "shared", f"-L{_torch_root() / 'lib'}"]
    library = work / LIBRARY_NAMES["cuda"]
    names = ["-lc10_cuda", "-ltorch_cpu", "-lc10"]
    return steps, Step((*link, "-o", str(library), *(str(step.output) for step in steps), *names), library)

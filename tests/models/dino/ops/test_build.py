"""How kernels come to be: on first use, once among ranks, per instruction set, or not, with one line."""

import importlib.machinery
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.dino.ops import compiler, extension
from tests.models.dino.ops.builds import place, program, start, status_of

# Prints the largest error against the reference, in units of what the type allows, and what ran.
PROBE = """
import logging, sys, torch
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
from models.dino.ops import extension, ms_deform_attn_fused
from models.dino.ops.reference import ms_deform_attn_fused_reference
from tests.models.dino.ops.cases import make_case

worst = 0.0
units = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
for channels, (dtype, unit) in zip((21, 32, 16, 8), units.items()):
    case = make_case(channels=channels, masked=True).to(dtype)
    exact = case.to(torch.float64)
    results = []
    for c, op in ((case, ms_deform_attn_fused), (exact, ms_deform_attn_fused_reference)):
        inputs = [x.detach().requires_grad_() for x in (c.value, c.logits)]
        output = op(inputs[0], c.shapes, c.offsets, inputs[1], c.reference_points, c.mask)
        output.square().sum().backward()
        results.append([output, *(x.grad for x in inputs)])
    for ours, right in zip(*results):
        worst = max(worst, float((ours.double() - right).abs().max() / right.abs().max() / unit))
print(f"worst {worst:.3f} compiled {extension.compiled('cpu')}")
"""


@pytest.fixture
def needs_compiler():
    try:
        compiler.find_host_compiler()
    except compiler.BuildError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("capability", ["avx2", pytest.param("default", marks=pytest.mark.ci)])
def test_ranks_build_each_instruction_set_once_and_right(needs_compiler, tmp_path, capability):
    environment = {"RICHSEM_OPS_CACHE": str(tmp_path), "ATEN_CPU_CAPABILITY": capability}
    ranks = [start(PROBE, **environment) for _ in range(2)]
    outputs = [rank.communicate() for rank in ranks]
    for out, log in outputs:
        assert "compiled True" in out, log
        assert float(out.split()[1]) <= 1
    assert sum("built in" in log for _, log in outputs) == 1
    (folder,) = tmp_path.iterdir()
    name = compiler.LIBRARY_NAMES["cpu"]
    assert sorted(path.name for path in folder.iterdir()) == ["cpu.lock", name, f"{name}.sha256"]


def test_no_compiler_falls_back_with_one_warning(monkeypatch, caplog, tools, tmp_path):
    status = status_of(monkeypatch, RICHSEM_OPS_CACHE=str(tmp_path / "cache"), PATH=str(tools))
    assert not status.compiled
    (warning,) = caplog.records
    assert "slow reference on cpu: no C++ compiler found" in warning.getMessage()


def test_failing_compiler_is_quoted_and_its_log_kept(monkeypatch, caplog, tools, tmp_path):
    program(tools / "c++", "echo 'kernels.cpp:1: fatal error: no such header' >&2; exit 1")
    path = f"{tools}:/usr/bin:/bin"
    status = status_of(monkeypatch, RICHSEM_OPS_CACHE=str(tmp_path / "cache"), PATH=path)
    assert not status.compiled
    assert "no such header" in status.reason
    (log,) = (tmp_path / "cache").glob("*/cpu.failed")
    assert "fatal error" in log.read_text()
    assert str(log) in status.reason
    assert len(caplog.records) == 1


def test_required_kernels_stop_with_one_line(monkeypatch, tools, tmp_path):
    with pytest.raises(extension.OpsError) as caught:
        status_of(monkeypatch, RICHSEM_OPS_CACHE=str(tmp_path), PATH=str(tools), RICHSEM_OPS="required")
    assert "RICHSEM_OPS=required but there are no cpu kernels: no C++ compiler found" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reference_can_be_forced(monkeypatch, tmp_path):
    status = status_of(monkeypatch, RICHSEM_OPS_CACHE=str(tmp_path / "cache"), RICHSEM_OPS="reference")
    assert status == extension.Status(False, "RICHSEM_OPS=reference")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(extension.OpsError, match="maybe is not one of auto, required, reference"):
        status_of(monkeypatch, RICHSEM_OPS="maybe")


def test_unwritable_cache_falls_back(monkeypatch, caplog, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert not status_of(monkeypatch, RICHSEM_OPS_CACHE=str(blocked / "cache")).compiled
    assert len(caplog.records) == 1


def test_library_that_does_not_load_falls_back(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(compiler, "build", lambda kind, directory: (directory / "x").touch())
    status = status_of(monkeypatch, RICHSEM_OPS_CACHE=str(tmp_path))
    assert not status.compiled
    assert "cannot open shared object" in status.reason
    assert len(caplog.records) == 1


def test_pytorch_without_cuda_is_named(monkeypatch):
    monkeypatch.setattr(compiler.torch.version, "cuda", None)
    with pytest.raises(compiler.AbsentError, match="built without CUDA"):
        compiler.find_nvcc()


_RELEASE = f"echo release {compiler.torch.version.cuda}"
NVCCS = {
    "none": (None, "no nvcc found at"),
    "broken": ("echo 'cannot open shared object' >&2; exit 127", "does not run: cannot open shared object"),
    "another CUDA": ("echo release 11.8, V11.8.89", "is CUDA 11.8 but PyTorch is built for"),
    "failing": (
        f"case $1 in --version) {_RELEASE};; *) echo 'fatal error: no' >&2; exit 1;; esac",
        "fatal error: no",
    ),
}


@pytest.fixture(params=NVCCS)
def cuda_home(request, monkeypatch, tmp_path):
    """A toolkit whose nvcc is of no use, and what is said about it."""
    if compiler.torch.version.cuda is None:
        pytest.skip("this PyTorch is built without CUDA")
    text, message = NVCCS[request.param]
    home = tmp_path / "cuda"
    (home / "bin").mkdir(parents=True)
    if text:
        program(home / "bin" / "nvcc", text)
    monkeypatch.setenv("CUDA_HOME", str(home))
    return home, message


def test_useless_nvcc_falls_back_with_one_line(needs_compiler, cuda_home, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("RICHSEM_OPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RICHSEM_OPS", raising=False)
    status = extension.status.__wrapped__("cuda")
    assert not status.compiled
    assert cuda_home[1] in status.reason
    (warning,) = caplog.records
    assert "slow reference on cuda" in warning.getMessage()
    assert "\n" not in warning.getMessage()
    monkeypatch.setenv("RICHSEM_OPS", "required")
    with pytest.raises(extension.OpsError, match="but there are no cuda kernels"):
        extension.status.__wrapped__("cuda")


def run_setup(tools: Path, target: Path, **environment: str) -> subprocess.CompletedProcess:
    """`setup.py build install` into `target`, with a C++ compiler that leaves empty files."""
    program(tools / "c++", 'while [ "$1" != -o ]; do shift; done; : > "$2"')
    command = [sys.executable, "setup.py", "build", "--build-base", str(target / "build")]
    command += ["install", "--root", str(target / "root"), "--single-version-externally-managed"]
    variables = {**os.environ, "CXX": str(tools / "c++"), **environment}
    # egg_info writes beside setup.py, so it works on a copy.
    copy = target / "ops"
    shutil.copytree(compiler.SOURCES.parent, copy, ignore=shutil.ignore_patterns("__pycache__", "build"))
    return subprocess.run(command, cwd=copy, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("cuda_home", ["broken"], indirect=True)
def test_setup_installs_the_cpu_kernels_where_nvcc_is_of_no_use(tools, cuda_home, tmp_path):
    result = run_setup(tools, tmp_path, RICHSEM_OPS="auto")
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("installing the CPU kernels"))
    assert cuda_home[1] in line
    (package,) = (tmp_path / "root").rglob(compiler.PACKAGE)
    names = {path.name for path in package.iterdir() if path.is_file()}
    library = compiler.LIBRARY_NAMES["cpu"]
    assert names == {"__init__.py", "build.json", library, f"{library}.sha256"}
    assert json.loads((package / "build.json").read_text()) == {"cpu": compiler.build_key("cpu")}


def test_setup_stops_with_one_line_without_a_compiler(tools, tmp_path):
    result = run_setup(tools, tmp_path, CXX="nowhere")
    assert result.returncode == 1
    assert "error: no C++ compiler found (looked for nowhere)" in result.stderr
    assert "Traceback" not in result.stderr


def test_architectures_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0 9.0+PTX")
    assert compiler.architectures() == ["8.0", "9.0+PTX"]
    assert compiler.architecture_flags(["8.0", "9.0+PTX"]) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Hopper")
    with pytest.raises(compiler.BuildError, match="'Hopper' is not an architecture"):
        compiler.architectures()


@pytest.mark.parametrize(
    ("entries", "capability", "runs"),
    [
        ("8.0", (8, 6), True),
        ("8.6", (8, 0), False),
        ("8.0", (9, 0), False),
        ("8.0+PTX", (9, 0), True),
        ("9.0a", (9, 0), True),
        ("9.0a+PTX", (10, 0), False),
        ("7.5 9.0+PTX", (12, 0), True),
    ],
)
def test_architectures_run_on_what_they_should(entries, capability, runs):
    assert compiler.runs_on(entries.split(), capability) == runs


def test_installed_kernels_for_other_gpus_are_not_used(monkeypatch, tmp_path):
    place(tmp_path / compiler.LIBRARY_NAMES["cuda"], b"")
    key = {**compiler.build_key("cuda"), "architectures": "8.0"}
    (tmp_path / "build.json").write_text(json.dumps({"cuda": key}))
    spec = importlib.machinery.ModuleSpec(compiler.PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(extension.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for capability, used in (((8, 6), True), ((9, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i, found=capability: found)
        assert (extension._installed("cuda") is not None) == used
    (tmp_path / compiler.LIBRARY_NAMES["cuda"]).write_bytes(b"x")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: (8, 6))
    assert extension._installed("cuda") is None


def test_sources_decide_what_is_loaded(monkeypatch, tmp_path):
    for folder in ("common", "cpu", "cuda"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(compiler, "SOURCES", tmp_path)

    def hashes_after_writing(path: str) -> tuple[str, str]:
        (tmp_path / path).write_text("int f();")
        return compiler.source_hash("cpu"), compiler.source_hash("cuda")

    first = hashes_after_writing("call.h")
    shared = hashes_after_writing("common/sampling.h")
    assert shared[0] != first[0]
    assert shared[1] != first[1]
    # A changed CUDA kernel asks for no build of the CPU kernels, nor the other way round.
    cuda = hashes_after_writing("cuda/forward.cu"), hashes_after_writing("binding_cuda.cpp")
    assert {cpu for cpu, _ in cuda} == {shared[0]}
    assert len({shared[1], *(hash_ for _, hash_ in cuda)}) == 3
    cpu = hashes_after_writing("cpu/kernels.cpp"), hashes_after_writing("binding_cpu.cpp")
    assert {hash_ for _, hash_ in cpu} == {cuda[-1][1]}
    assert len({shared[0], *(hash_ for hash_, _ in cpu)}) == 3

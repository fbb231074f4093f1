"""`python setup.py build install [--user]`: compiles the kernels ahead of time and installs them.

Not needed: kernels that are missing are built on first use. It serves machines whose users have no
compiler, and clusters whose nodes should not compile. Needs no GPU: without one it compiles CUDA for
`TORCH_CUDA_ARCH_LIST` or a list of common architectures; without a fitting nvcc it installs the CPU kernels
alone. `RICHSEM_OPS=required` turns that last case into an error.
"""

import json
import os
from pathlib import Path

import compiler
from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext


class BuildKernels(build_ext):
    """Fills the package with the libraries and with what they were built for."""

    def run(self) -> None:
        directory = Path(self.build_lib) / compiler.PACKAGE
        compiler.build("cpu", directory, sorted(compiler.instruction_sets()))
        keys = {"cpu": compiler.build_key("cpu")}
        try:
            compiler.build("cuda", directory)
            keys["cuda"] = {**compiler.build_key("cuda"), "architectures": " ".join(compiler.architectures())}
        except compiler.BuildError as error:
            if os.environ.get("RICHSEM_OPS") == "required":
                raise SystemExit(f"error: {error}\n{error.log}") from error
            print(f"installing the CPU kernels alone: {error}")
        (directory / "__init__.py").write_text('"""Compiled kernels of models.dino.ops."""\n')
        (directory / "build.json").write_text(json.dumps(keys, indent=1))

    def get_outputs(self) -> list[str]:
        return [str(path) for path in sorted((Path(self.build_lib) / compiler.PACKAGE).glob("*"))]


class BinaryDistribution(Distribution):
    """Goes where compiled code goes, and never into a zip file."""

    def has_ext_modules(self) -> bool:
        return True


try:
    setup(
        name="richsem-ops",
        version="1.0",
        description="Compiled kernels of RichSem's multi-scale deformable attention",
        distclass=BinaryDistribution,
        ext_modules=[Extension(f"{compiler.PACKAGE}.kernels", [])],
        packages=[],
        py_modules=[],
        cmdclass={"build_ext": BuildKernels},
        zip_safe=False,
    )
except compiler.BuildError as error:
    raise SystemExit(f"error: {error}\n{error.log}") from error

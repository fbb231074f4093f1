"""Imports run one way. Reads every import of the project, those inside functions too.

main.py, tools, benchmarks, tests      may import everybody
config    -> config, util              and only build.py files import config
datasets  -> datasets, util
engine    -> engine, util
models    -> models, util              models.richsem -> models.dino -> models.dino.ops, never back
util      -> util
"""

import ast
from pathlib import Path

import pytest

from tests.source_files import PACKAGES, PROGRAMS, module_name, python_files, tree

ALLOWED = {
    "config": {"config", "util"},
    "datasets": {"datasets", "util"},
    "engine": {"engine", "util"},
    "models": {"models", "util"},
    "util": {"util"},
}
# Inside models, from the top down: each may import itself and what is below it.
MODEL_LAYERS = ("models.richsem", "models.dino", "models.dino.ops")
OUR_TOPS = {*PACKAGES, *PROGRAMS, "main"}
_IMPORTERS = {"import_module", "__import__"}


def imported_modules(source: ast.AST, path: Path) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything that `path` imports, wherever in the file.

    `from a import b` counts as `a.b`, since b may be a module. import_module with a literal counts too.
    """
    package = path.parent.parts
    found = []
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - (node.level - 1)] if node.level else ()
            start = ".".join([*above, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{start}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called in _IMPORTERS and isinstance(node.args[0].value, str):
                found.append((node.lineno, node.args[0].value))
    return found


def violations(source: ast.AST, path: Path) -> list[str]:
    """What `path` imports against the rules, one line each."""
    top = path.parts[0]
    if top not in ALLOWED:
        return []
    sees_config = (path.name == "build.py" and top != "util") or path.as_posix() == "models/richsem/load.py"
    allowed = ALLOWED[top] | ({"config"} if sees_config else set())
    broken = []
    for line, name in imported_modules(source, path):
        imported_top = name.split(".")[0]
        if imported_top in OUR_TOPS and imported_top not in allowed:
            broken.append(f"{path}:{line} imports {name}: {top} may import only {', '.join(sorted(allowed))}")
        elif imported_top == top == "models" and _upwards(module_name(path), name):
            broken.append(f"{path}:{line} imports {name}: against {' -> '.join(MODEL_LAYERS)}")
    return broken


def _layer(name: str) -> int | None:
    """Position of a module in MODEL_LAYERS, the most specific one; None outside them."""
    inside = [i for i, layer in enumerate(MODEL_LAYERS) if f"{name}.".startswith(f"{layer}.")]
    return max(inside, default=None)


def _upwards(importer: str, imported: str) -> bool:
    source, target = _layer(importer), _layer(imported)
    return source is not None and target is not None and target < source


def test_there_are_files_to_read():
    names = {module_name(path) for path in python_files()}
    assert {"config.schema", "util.errors", "tests.test_imports"} <= names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package):
    files = [path for path in python_files() if path.parts[0] == package]
    broken = [line for path in files for line in violations(tree(path), path)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("util/boxes.py", "import config"),
        ("util/build.py", "from config import load"),
        ("config/loader.py", "from engine.schedule import Schedule"),
        ("config/loader.py", "import main"),
        ("datasets/lvis.py", "def f():\n    from models.dino import heads"),
        ("datasets/lvis.py", "from config.schema import Config"),
        ("datasets/build.py", "import tools.parity"),
        ("engine/train_epoch.py", "import datasets.detection as lvis"),
        ("engine/train_epoch.py", "import importlib\nimportlib.import_module('models.dino')"),
        ("models/dino/heads.py", "from models.richsem import teacher"),
        ("models/dino/heads.py", "from ..richsem.teacher import Teacher"),
        ("models/dino/heads.py", "from .. import richsem"),
        ("models/dino/ops/module.py", "from models.dino.layers import MLP"),
        ("models/dino/ops/module.py", "from ..layers import MLP"),
        ("models/dino/ops/module.py", "if True:\n    import models.richsem.teacher"),
        ("models/richsem/teacher.py", "from datasets.augment.policy import denormalise"),
    ],
)
def test_a_violation_is_found(path, source):
    assert len(violations(ast.parse(source), Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("datasets/build.py", "from config import Config\nfrom util.errors import UserError"),
        (
            "models/richsem/build.py",
            "from config.schema import Config\nfrom models.dino.build import build_dino",
        ),
        ("models/richsem/semantic_head.py", "from models.dino.heads import DecoderHead"),
        ("models/dino/encoder.py", "from models.dino.ops import ms_deform_attn\nfrom .ops import module"),
        ("models/dino/ops/module.py", "from models.dino.ops.reference import f\nfrom . import dispatch"),
        ("models/dino/heads.py", "from . import layers\nfrom .layers import MLP"),
        ("engine/train_epoch.py", "import torch\nfrom datasets_of_another import x\nfrom util import boxes"),
        ("main.py", "import config, datasets.build, engine, models.richsem.build"),
        ("tools/parity.py", "import config"),
    ],
)
def test_what_is_allowed_is_not_a_violation(path, source):
    assert violations(ast.parse(source), Path(path)) == []

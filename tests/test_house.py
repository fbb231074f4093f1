"""House rules beyond ruff's: length of files and functions, devices, half-done features, config keys."""

import ast
from pathlib import Path

import pytest

from config.schema import key_fields
from tests.source_files import PACKAGES, ROOT, python_files, tree

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
# Derived from the class list; a given value is compared with num_classes when the config is made.
ONLY_CHECKED = {"dn_labelbook_size"}
# Names under which a Config is at hand where it is read.
CONFIG_NAMES = {"config", "cfg"}


def functions(source: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(source) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def long_functions(source: ast.AST) -> list[str]:
    """Functions of more lines than allowed. The docstring counts."""
    lengths = [(f, f.end_lineno - f.lineno + 1) for f in functions(source)]
    return [f"{f.lineno} {f.name}: {lines} lines" for f, lines in lengths if lines > MAX_FUNCTION_LINES]


def device_literals(source: ast.AST) -> list[str]:
    """Calls of `.cuda(...)`."""
    calls = [n for n in ast.walk(source) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    return [f"{n.lineno} .cuda()" for n in calls if n.func.attr == "cuda"]


def not_implemented(source: ast.AST) -> list[str]:
    """Uses of NotImplementedError: a feature is there or its key is refused."""
    names = [n for n in ast.walk(source) if isinstance(n, ast.Name)]
    return [f"{n.lineno} {n.id}" for n in names if n.id == "NotImplementedError"]


def late_imports(source: ast.AST) -> list[str]:
    """Imports of our packages inside functions."""
    found = []
    for node in (n for function in functions(source) for n in ast.walk(function)):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        found += [f"{node.lineno} {name}" for name in names if name.partition(".")[0] in PACKAGES]
    return found


def hyphenated_flags(source: ast.AST) -> list[str]:
    """Flags of commands whose first spelling is not with underscores, as `main.py` has its own."""
    calls = [n for n in ast.walk(source) if isinstance(n, ast.Call) and n.args]
    added = [n for n in calls if getattr(n.func, "attr", "") == "add_argument"]
    flags = [(n.lineno, str(getattr(n.args[0], "value", ""))) for n in added]
    return [f"{line} {flag}" for line, flag in flags if "-" in flag.lstrip("-")]


# What runs code of the data that it reads.
UNSAFE = {"pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "yaml.load", "yaml.unsafe_load"}


def unsafe_readers(source: ast.AST) -> list[str]:
    """Calls that run what they read: pickles, `torch.load` without weights_only=True, foreign code."""
    found = []
    for node in (n for n in ast.walk(source) if isinstance(n, ast.Call)):
        name = ast.unparse(node.func)
        named = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        unsafe = name in UNSAFE or (name == "torch.load" and named.get("weights_only") is not True)
        if unsafe or named.get("allow_pickle") is True or named.get("trust_remote_code") is True:
            found.append(f"{node.lineno} {name}")
    return found


def keys_read(source: ast.AST) -> set[str]:
    """What is taken from something called config: `config.lr`, `self.config.lr`, `getattr(config, "lr")`."""
    read = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Attribute) and _is_config(node.value):
            read.add(node.attr)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr" and len(node.args) > 1:
            name = node.args[1]
            if _is_config(node.args[0]) and isinstance(name, ast.Constant):
                read.add(name.value)
    return read


def _is_config(node: ast.AST) -> bool:
    return getattr(node, "id", getattr(node, "attr", None)) in CONFIG_NAMES


def broken(check, files=None) -> str:
    """Every finding of `check` over the syntax trees of `files`, one per line."""
    files = python_files() if files is None else files
    return "\n".join(f"{path}:{finding}" for path in files for finding in check(tree(path)))


def test_files_are_short():
    lines = {path: (ROOT / path).read_text(encoding="utf-8").count("\n") for path in python_files()}
    long = [f"{path}: {count} lines" for path, count in lines.items() if count >= MAX_FILE_LINES]
    assert not long, "\n".join(long)


def test_functions_are_short():
    assert not broken(long_functions)


def test_no_device_is_written_down():
    files = [path for path in python_files() if path.parts[0] not in ("tests", "benchmarks")]
    assert not broken(device_literals, files)


def test_nothing_is_half_there():
    files = [path for path in python_files() if path.parts[0] != "tests"]
    assert not broken(not_implemented, files)


def test_packages_import_one_another_at_the_top():
    # After torch.hub.load the checkout is off sys.path: a later import would fail, or find another library.
    files = [path for path in python_files() if path.parts[0] in PACKAGES]
    assert not broken(late_imports, files)


def test_flags_are_written_with_underscores():
    assert not broken(hyphenated_flags)


def test_no_reader_runs_what_it_reads():
    files = [path for path in python_files() if path.parts[0] not in ("tests", "benchmarks")]
    # A config file is code; the YAML loader is a safe one without aliases.
    right = {Path("config/loader.py"): "exec", Path("datasets/annotations/yolo_yaml.py"): "yaml.load"}
    found = [line for line in broken(unsafe_readers, files).splitlines()]
    assert [line for line in found if right.get(Path(line.split(":")[0])) != line.split()[-1]] == []
    assert len(found) == len(right)


def test_every_config_key_is_read():
    readers = [path for path in python_files() if path.name == "build.py" or path == Path("main.py")]
    read = set().union(*(keys_read(tree(path)) for path in readers))
    if "image_level_epochs" in read:  # a property that reads it
        read.add("image_level_start")
    unread = sorted(set(key_fields()) - read - ONLY_CHECKED)
    assert not unread, f"keys that no build.py and not main.py reads: {', '.join(unread)}"


def test_every_key_that_is_read_exists():
    methods = {"to_dict", "from_dict", "images_per_batch", "image_level_epochs"}
    readers = [path for path in python_files() if path.name == "build.py" and path.parts[0] != "tests"]
    unknown = [
        f"{p}: config.{name}" for p in readers for name in keys_read(tree(p)) - set(key_fields()) - methods
    ]
    assert not unknown, "\n".join(unknown)


@pytest.mark.parametrize(
    ("check", "source", "count"),
    [
        (long_functions, "def f():\n" + "    x = 1\n" * 79, 0),
        (long_functions, "def f():\n" + "    x = 1\n" * 80, 1),
        (device_literals, "x.cuda()\ny = z.cuda(non_blocking=True)", 2),
        (device_literals, "torch.cuda.is_available()\nx.to('cpu')", 0),
        (not_implemented, "raise NotImplementedError", 1),
        (late_imports, "import util.boxes\ndef f():\n    import json", 0),
        (late_imports, "def f():\n    import util.boxes\n    from datasets import x", 2),
        (not_implemented, "raise NotImplementedError('x')", 1),
        (unsafe_readers, "torch.load(f)\ntorch.load(f, weights_only=False)\npickle.load(f)\neval('1')", 4),
        (unsafe_readers, "torch.load(f, weights_only=True)\nnp.load(f)\njson.load(f)\nmodel.eval()", 0),
        (unsafe_readers, "np.load(f, allow_pickle=True)", 1),
        (hyphenated_flags, "p.add_argument('--add-names')\np.add_argument('--size-any', '--size')", 2),
        (hyphenated_flags, "p.add_argument('-c')\np.add_argument('--a_b', '--a-b')\np.add_argument('x')", 0),
    ],
)
def test_the_checks_find_what_they_look_for(check, source, count):
    assert len(check(ast.parse(source))) == count


def test_the_key_check_knows_the_ways_of_reading():
    source = (
        "a = config.lr\nb = self.config.epochs\nc = getattr(config, 'amp')\nd = args.seed\ne = cfg.lr_drop"
    )
    assert keys_read(ast.parse(source)) == {"lr", "epochs", "amp", "lr_drop"}

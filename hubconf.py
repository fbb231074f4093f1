"""The Python API, in torch.hub's convention; from the checkout, `from hubconf import richsem`.

    model = torch.hub.load(REPO, "richsem", checkpoint="checkpoint.pth", source="local")
    prediction = model("image.jpg")

torch.hub takes the repository off `sys.path` once it has loaded, and our top-level packages have names that
other libraries have too (Hugging Face's `datasets`). So under torch.hub, everything the model will need is
imported at once, and our names leave `sys.modules` again: a later `import datasets` finds the other one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

dependencies = ["torch", "torchvision", "timm", "open_clip", "msgspec", "safetensors", "addict", "yapf"]

_ROOT = Path(__file__).resolve().parent
_PACKAGES = ("config", "datasets", "engine", "inference", "models", "util")
# Where this checkout's modules wait between two loads. They cannot be imported twice: they register
# operators with torch.
_SHELF = f"richsem_modules:{_ROOT}"


def richsem(checkpoint: str | Path, **options: Any) -> Any:
    """A trained detector: an `inference.predictor.Predictor`, called on images, gives their predictions.

    checkpoint: of this project or of the official release.
    options: as `inference.load.load_predictor` takes them: `device`, `precision`, `score`, `tile`,
        `annotations`, `names`, `add_names`, `prompts`.
    Raises UserError, a one-line message, for a file or an option that does not fit.
    """
    with _own_modules():
        return importlib.import_module("inference.load").load_predictor(checkpoint, **options)


@contextmanager
def _own_modules() -> Iterator[None]:
    """Lets this checkout's packages be imported, whatever modules of the same names there are."""
    if _imported_by_name():
        yield
        return
    shelf = sys.modules.setdefault(_SHELF, ModuleType(_SHELF)).__dict__.setdefault("modules", {})
    foreign = _take_modules()
    sys.modules.update(shelf)
    sys.path.insert(0, str(_ROOT))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(_ROOT))
        shelf.update(_take_modules())
        sys.modules.update(foreign)


def _imported_by_name() -> bool:
    """Whether the checkout is on the path by the user's own wish, not just while torch.hub loads it.

    Not where a package of one of our names was imported from elsewhere before: ours would not be found.
    """
    packages = [sys.modules[name] for name in _PACKAGES if name in sys.modules]
    if not all(map(_is_ours, packages)):
        return False
    return bool(packages) or ("hubconf" in sys.modules and _is_ours(sys.modules["hubconf"]))


def _is_ours(module: ModuleType) -> bool:
    """Whether a top-level module is this checkout's own, not one of a virtual environment inside it."""
    own = (_ROOT / f"{module.__name__}.py", _ROOT / module.__name__ / "__init__.py")
    return module.__file__ is not None and Path(module.__file__).resolve() in own


def _take_modules() -> dict[str, ModuleType]:
    """Removes the modules that have our packages' names, whosever they are, and returns them."""
    names = [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]
    return {name: sys.modules.pop(name) for name in names}

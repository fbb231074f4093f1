"""Annotations are checked under the tests: every call into the models, shapes of tensors included.

Not so calls into models.dino.ops: it checks its arguments itself, always, and is compiled and traced with
fake tensors. Nothing is checked in production.
"""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

from tests.source_files import ROOT

# As for Python's typing, an int will do for a float.
typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def install() -> None:
    """Call before the models are imported."""
    dino = [f"models.dino.{path.stem}" for path in sorted((ROOT / "models/dino").glob("*.py"))]
    install_import_hook([*dino, "models.richsem", "util.boxes", "util.structures"], f"{__name__}.typechecked")

"""Optional packages: imported where they are needed; one that is missing or broken costs only what needs it.

A package that is installed but can't be imported is usually built for another release of torch. transformers imports torchaudio
and torchvision wherever they are installed, so that a broken one would keep every model from being loaded: `hide_broken_packages`
makes it look as if such a package was not installed.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

# The extra of pyproject.toml that installs a package.
EXTRAS = {
    "catboost": "catboost",
    "chemprop": "chemprop",
    "deepspeed": "deepspeed",
    "lightgbm": "lightgbm",
    "lightning": "chemprop",
    "lmdb": "chem",
    "matplotlib": "report",
    "rdkit": "chem",
    "soundfile": "audio",
    "tdc": "chem",
    "tensorboard": "track",
    "torchaudio": "audio",
    "torchvision": "vision",
    "wandb": "track",
}
# Modules of transformers that import a package as soon as it is installed.
_IMPORTED_BY = {"transformers.image_utils": "torchvision", "transformers.audio_utils": "torchaudio"}
_broken: dict[str, Exception] = {}


def need(package: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: a key of `EXTRAS`.
        purpose: what needs it, as an error names it: "dataset 'mnist'".

    Raises:
        FPTError: the package is missing or broken; the message gives the cause and the extra that installs it.
    """
    from fpt.errors import FPTError

    if reason := missing(package):
        raise FPTError(f"{purpose} needs {reason}") from _broken[package]
    return sys.modules[package]


def missing(package: str) -> str:
    """Why an optional package can't be used and how to install it, or an empty string if it can be used."""
    from fpt.text.escape import one_line

    if package not in _broken:
        try:
            importlib.import_module(package)
            return ""
        except Exception as error:  # whatever a broken package raises
            _broken[package] = error
    why, install = _broken[package], f"pip install 'fpt[{EXTRAS[package]}]'"
    if isinstance(why, ModuleNotFoundError) and why.name == package:
        return f"the package {package}, which is not installed; {install}"
    cause = one_line(f"{type(why).__name__}: {why}", 300)
    how = "install a release that fits the installed torch" if package.startswith("torch") else "install it again"
    return f"the package {package}, which is installed but can't be imported ({cause}); {how}: {install}"


def missing_of(packages: Iterable[str]) -> str:
    """As `missing`, of the first of several packages that can't be used."""
    return next((reason for package in packages if (reason := missing(package))), "")


class _BrokenPackageFinder(importlib.abc.MetaPathFinder):
    """Tries a package just before transformers imports it, and hides it when it is broken."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        package = _IMPORTED_BY.get(fullname)
        if package is not None and package not in sys.modules and importlib.util.find_spec(package) and missing(package):
            for name in [name for name in sys.modules if name.startswith(package + ".")]:
                del sys.modules[name]
            # Python then finds no package of that name, and transformers leaves out what it would do with it.
            sys.modules[package] = None  # type: ignore[assignment]
            checks = sys.modules["transformers.utils.import_utils"]
            for check in (f"is_{package}_available", f"is_{package}_v2_available"):
                if hasattr(checks, check):
                    getattr(checks, check).cache_clear()


def hide_broken_packages() -> None:
    """Keep transformers usable beside a broken torchaudio or torchvision, for this process."""
    if not any(isinstance(finder, _BrokenPackageFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BrokenPackageFinder())

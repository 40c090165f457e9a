"""A name -> object table that fills itself: every module of a package may register into it.

An entry whose optional packages are missing or broken stays listed, and asking for it says what to install. A module that can't
be imported at all costs its own entries only.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from fpt.errors import FPTError, did_you_mean
from fpt.optional import missing_of
from fpt.text.escape import one_line

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind. The modules of `package` are imported on first use, so adding an entry is adding a file.

    An entry may have an attribute `packages`: the optional packages (keys of `fpt.optional.EXTRAS`) that it can't work without.
    """

    def __init__(self, kind: str, package: str, hint: str = "") -> None:
        self.kind, self.package, self.hint = kind, package, hint
        self._entries: dict[str, T] = {}
        self._not_loaded: dict[str, str] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the decorated object known as `name`.

        Raises:
            ValueError: the name is taken.
        """

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                self._import(f"{self.package}.{module.name}")

    def _import(self, module: str) -> None:
        known = set(self._entries)
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            # What a missing package raises, and one that is built for another release of torch. A module of ours is a bug.
            if isinstance(error, ImportError) and (error.name or "").split(".")[0] == "fpt":
                raise
            self._entries = {name: entry for name, entry in self._entries.items() if name in known}
            self._not_loaded[module] = one_line(f"{type(error).__name__}: {error}", 300)

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __getitem__(self, name: str) -> T:
        """Return the entry called `name`.

        Raises:
            FPTError: there is none, and the message suggests the nearest names; or a package that it needs is missing or broken.
        """
        entry = self.find(name)
        self.check_packages(name, entry)
        return entry

    def find(self, name: str) -> T:
        """Return the entry called `name`, also when a package that it needs is missing: enough to describe it.

        Raises:
            FPTError: there is none; the message suggests the nearest names.
        """
        self._load()
        if name not in self._entries:
            known = ", ".join(self)
            raise FPTError(
                f"unknown {self.kind} {name!r}{did_you_mean(name, self)}; known: {known}{self.hint}{self._unavailable()}"
            )
        return self._entries[name]

    def check_packages(self, name: str, entry: object) -> None:
        """Raise FPTError if a package that an entry needs is missing or broken."""
        if reason := missing_of(getattr(entry, "packages", ())):
            raise FPTError(f"{self.kind} {name!r} needs {reason}")

    def _unavailable(self) -> str:
        """The entries that can't be used here and why, for an error."""
        names: dict[str, list[str]] = {}
        for name in self:
            if reason := missing_of(getattr(self._entries[name], "packages", ())):
                names.setdefault(reason, []).append(name)
        reasons = [f"{', '.join(found)} (needs {reason})" for reason, found in names.items()]
        reasons += [f"what {module} registers ({reason})" for module, reason in self._not_loaded.items()]
        return f"; not available here: {'; '.join(reasons)}" if reasons else ""

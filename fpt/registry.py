"""A name -> object table that fills itself: every module of a package may register into it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from fpt.errors import FPTError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind. The modules of `package` are imported on first use, so adding an entry is adding a file."""

    def __init__(self, kind: str, package: str, hint: str = "") -> None:
        self.kind, self.package, self.hint = kind, package, hint
        self._entries: dict[str, T] = {}
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
                importlib.import_module(f"{self.package}.{module.name}")

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __getitem__(self, name: str) -> T:
        """Return the entry called `name`.

        Raises:
            FPTError: there is none; the message suggests the nearest names.
        """
        self._load()
        if name not in self._entries:
            known = ", ".join(self)
            raise FPTError(f"unknown {self.kind} {name!r}{did_you_mean(name, self)}; known: {known}{self.hint}")
        return self._entries[name]

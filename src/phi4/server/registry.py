"""Names that requests may use for a model, and what each stands for.

A request names a model; it never names a file. The base model has its own name or those an operator gave
(`--served-model-name`); each registered adapter (`--adapter NAME=DIR`, PEFT layout) is one more name, under
which the base model answers with that adapter on top of the one its media ask for. Nothing is added while a
server runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phi4.errors import InvalidRequest
from phi4.server.http.errors import UnknownModel
from phi4.server.worker.values import ModelCard

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}")
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class ServedModel:
    """One name.

    Attributes:
        name: What requests say.
        adapter: Registered name of the user's adapter it stands for; empty = the model alone.
        parent: The model below an adapter; empty = it is that model itself.
    """

    name: str
    adapter: str = ""
    parent: str = ""


class ServedModels:
    """All names of a server.

    Args:
        names: What an operator calls the base model; none = its own name.
        adapters: (name, directory) of registered adapters.
        card: Gives the model's card, which is known once the engine has started.

    Raises:
        InvalidRequest: A name is malformed or there twice.
    """

    def __init__(
        self,
        names: Sequence[str],
        adapters: Sequence[tuple[str, str]],
        card: Callable[[], ModelCard],
    ) -> None:
        self._names = tuple(names)
        self._adapters = tuple(name for name, _ in adapters)
        self._card = card
        check_names((*self._names, *self._adapters))

    def all(self) -> tuple[ServedModel, ...]:
        """Every name, the base model's first."""
        own = self._names or (self._card().name,)
        base = tuple(ServedModel(name) for name in own)
        return base + tuple(ServedModel(name, name, own[0]) for name in self._adapters)

    def find(self, name: str | None) -> ServedModel:
        """What a name stands for; None = the base model.

        Raises:
            UnknownModel: Nothing is served under it.
        """
        served = self.all()
        if name is None:
            return served[0]
        for model in served:
            if model.name == name:
                return model
        raise UnknownModel(
            f"the model {name[:80]!r} is not served here; the list of models names those that are"
        )


def check_names(names: Sequence[str]) -> None:
    """Refuse names that could not be told apart or not be written into a URL.

    Raises:
        InvalidRequest: Names the one.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"served name {name!r}: use 1 to 128 letters, digits and the signs . _ - / : @"
            )
        if names.count(name) > 1:
            raise InvalidRequest(f"served name {name!r} is given twice; give each name once")


def adapter_option(text: str) -> tuple[str, str]:
    """`NAME=DIR` of the option `--adapter`, taken apart.

    Raises:
        InvalidRequest: It has another form, or the name cannot be one.
    """
    name, found, directory = text.partition("=")
    if not found or not directory:
        raise InvalidRequest(f"--adapter {text!r}: give it as NAME=DIR")
    if not _ADAPTER_NAME.fullmatch(name):
        raise InvalidRequest(f"--adapter {name!r}: use 1 to 64 letters, digits, '_' and '-' for the name")
    return name, directory

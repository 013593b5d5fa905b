"""Which adapters a request runs with, and what a model lacks for that.

A model may have an encoder and no adapter of its name: trained so, or copied without the adapter's folder.
Its media then run on the base weights alone, which is said once, when the model is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from phi4.configs import Phi4Config
from phi4.configs.routing import Route, route
from phi4.errors import InvalidRequest
from phi4.types import Modality, ModelInputs

_log = logging.getLogger(__name__)
_MEDIA: dict[Modality, str] = {"vision": "pictures", "speech": "recordings"}
"""Encoder, which is also the name of its adapter -> what it takes, in words."""


def choose_adapters(config: Phi4Config, inputs: ModelInputs, user_adapter: str | None = None) -> Route:
    """Route a prompt by its media, as far as the model has the adapters for it.

    Args:
        config: The model.
        inputs: The prompt.
        user_adapter: Name of the user's own adapter, added after the modality's.
    """
    chosen = route(bool(inputs.images), bool(inputs.audios), user_adapter)
    known = {adapter.name for adapter in config.adapters} | {user_adapter}
    return Route(tuple(name for name in chosen.adapters if name in known), chosen.audio_projector)


def check_user_adapter(name: str | None) -> None:
    """Refuse a name that a modality's adapter has: the user's own would act in its place, or twice.

    Raises:
        InvalidRequest: The name is "vision" or "speech".
    """
    if name in _MEDIA:
        raise InvalidRequest(
            f"an adapter of your own cannot be called {name!r}, the name of a modality's adapter; "
            f"rename its folder, for instance to 'my-{name}'"
        )


def media_without_adapter(config: Phi4Config) -> dict[Modality, str]:
    """Encoders of the model that have no adapter -> what they take, in words."""
    known = {adapter.name for adapter in config.adapters}
    return {part: _MEDIA[part] for part in config.modalities if part in _MEDIA and part not in known}


def warn_without_adapter(config: Phi4Config, parts: Sequence[Modality] | None = None) -> None:
    """Log a warning for each encoder that has no adapter.

    Args:
        config: The model.
        parts: Parts that are loaded; None = all it has.
    """
    for part, media in media_without_adapter(config).items():
        if parts is None or part in parts:
            _log.warning(
                "the %s encoder of this model has no adapter: %s run on the base weights alone. Unless the "
                "model was trained so, its files are not whole (HF-native layout: the folder %s-lora/)",
                part,
                media,
                part,
            )

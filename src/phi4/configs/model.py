"""A whole model: decoder, optional encoders, adapters, token hints and the unknown rest of its file.

`Phi4Config` is what every room above means by "the model"; `read_config` makes one from a directory,
presets and recipes make one by hand, and both pass the same checks. Frozen: a variant is made with
`dataclasses.replace` or `with_layout`. How a file spells all this is in `spelling.py`, not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from phi4.configs.decoder import DECODER_TARGETS, DecoderConfig
from phi4.configs.fields import number, refuse, whole
from phi4.configs.speech import SpeechConfig
from phi4.configs.vision import VisionConfig
from phi4.errors import InvalidRequest
from phi4.types import Modality

Layout = Literal["mini", "original", "hf"]
LAYOUTS: tuple[Layout, ...] = ("mini", "original", "hf")
DTYPES = ("bfloat16", "float16", "float32")
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class AdapterConfig:
    """One LoRA: y = W x + scale * B(A x) on the decoder's matrices.

    Attributes:
        name: "vision", "speech", or the user's own name.
        r: Rank.
        lora_alpha: Numerator of the scale.
        dropout: On the adapter's input, in training only.
        target_modules: Matrices it acts on, a subset of `DECODER_TARGETS`.

    Raises:
        InvalidConfig: A value cannot work.
    """

    name: str
    r: int
    lora_alpha: float
    dropout: float = 0.0
    target_modules: tuple[str, ...] = DECODER_TARGETS

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _ADAPTER_NAME.fullmatch(self.name):
            refuse("adapter name", self.name, "1 to 64 letters, digits, '_' or '-'")
        whole(f"{self.name}_lora.r", self.r, high=65536)
        number(f"{self.name}_lora.lora_alpha", self.lora_alpha, 0.0, 1e6)
        number(f"{self.name}_lora.dropout", self.dropout, 0.0, 0.999)
        if not self.target_modules or not set(self.target_modules) <= set(DECODER_TARGETS):
            refuse(f"{self.name}_lora targets", self.target_modules, f"some of {list(DECODER_TARGETS)}")

    @property
    def scale(self) -> float:
        """Weight of the adapter's output, alpha / r."""
        return self.lora_alpha / self.r


@dataclass(frozen=True)
class Phi4Config:
    """Everything a `config.json` (with its sibling files) says about a model.

    Attributes:
        layout: Which released layout the files follow: "mini" (model_type phi3), "original" (phi4mm),
            "hf" (phi4_multimodal).
        decoder: The text decoder.
        vision: The vision tower, None for a text model.
        speech: The speech encoder, None for a text model.
        adapters: The modality adapters in the order of the file.
        bos_token_id: As written; never used to build a prompt (the tokenizer file decides ids).
        eos_token_ids: As written; stop ids come from the tokenizer file.
        pad_token_id: As written.
        dtype: Type the weights are meant to be stored in.
        extra: The JSON object this was read from, so that `write_config` keeps what we do not know.
        vision_from_tensors: True = the file is silent about the tower (original layout); `vision` then holds
            the released sizes until the checkpoint replaces them by what its tensors say.

    Raises:
        InvalidConfig: Parts do not fit each other.
    """

    layout: Layout
    decoder: DecoderConfig
    vision: VisionConfig | None = None
    speech: SpeechConfig | None = None
    adapters: tuple[AdapterConfig, ...] = ()
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    dtype: str = "bfloat16"
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    vision_from_tensors: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            refuse("layout", self.layout, f"one of {list(LAYOUTS)}")
        if self.dtype not in DTYPES:
            refuse("dtype", self.dtype, f"one of {list(DTYPES)}")
        names = [adapter.name for adapter in self.adapters]
        if len(set(names)) != len(names):
            refuse("adapters", names, "names that differ from each other")
        self._check_token_ids()

    def _check_token_ids(self) -> None:
        ids: list[tuple[str, int | None]] = [
            ("bos_token_id", self.bos_token_id),
            ("pad_token_id", self.pad_token_id),
        ]
        ids += [("eos_token_id", token_id) for token_id in self.eos_token_ids]
        for name, token_id in ids:
            if token_id is None:
                continue
            whole(name, token_id, low=0)
            if token_id >= self.decoder.vocab_size:
                refuse(name, token_id, f"below vocab_size = {self.decoder.vocab_size}")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model can take in, text first."""
        found: list[Modality] = ["text"]
        if self.vision is not None:
            found.append("vision")
        if self.speech is not None:
            found.append("speech")
        return tuple(found)

    def adapter(self, name: str) -> AdapterConfig:
        """The adapter called `name`.

        Raises:
            InvalidRequest: There is none of that name.
        """
        for adapter in self.adapters:
            if adapter.name == name:
                return adapter
        known = [adapter.name for adapter in self.adapters]
        raise InvalidRequest(f"no adapter named {name!r}; this model has {known or 'none'}")

    def with_layout(self, layout: Layout) -> Phi4Config:
        """The same model as a config of another layout (the mini layout keeps the decoder only)."""
        if layout == "mini":
            return replace(
                self, layout=layout, vision=None, speech=None, adapters=(), vision_from_tensors=False
            )
        return replace(self, layout=layout)

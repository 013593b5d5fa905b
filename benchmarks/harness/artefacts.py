"""Files that are made before anything is measured: random checkpoints, our packages, formats of the peers.

Only commands a user has too: `phi4 export`, llama.cpp's quantiser, optimum-intel, onnxruntime-genai's
builder. In a command `{out}` stands for the file to write, `{python}` and `{bin}` for the environment,
`{threads}`, `{seconds}` and `{scale}` for themselves, and the name of another artefact for its path.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.environments import BENCHMARKS, OURS
from harness.scale import Scale

MEDIA = "media.npz"
"""The prompt with a picture and a recording."""
_QUICK_BYTES = 200e6
_MAKE_CHECKPOINT = ("{python}", str(BENCHMARKS / "make_random_checkpoint.py"))
_EXPORT = ("{python}", "-m", "phi4", "export")
PROFILES: dict[str, tuple[str, ...]] = {
    "fast": ("--precision", "int4", "--part", "head=int4", "--fast"),
    # Smaller than llama.cpp's `--pure` file: keys and values in half precision too.
    "lean": ("--precision", "int4", "--part", "head=int4", "--kv", "fp16"),
}
"""Profile -> what `phi4 export` is given for it; what its answers lose is measured by `precision.py`."""


@dataclass(frozen=True)
class Artefact:
    """One file or folder in the scratch folder.

    Attributes:
        name: Its name there.
        environment: Where it is made.
        command: Writes it to `{out}`.
        needs: Artefacts it is made of.
        weights: Model whose number of weights decides its size.
        bytes_per_weight: Size; measured ones are in docs/onnx.md.
        more_per_weight: Room it takes beside that while it is made.
        memory_per_weight: Memory it is known to need while it is made; 0 = little.
        resumable: A stopped command goes on when it is given again.
        then_drop: Artefacts nobody needs once it is there.
    """

    name: str
    environment: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    weights: str = "mini"
    bytes_per_weight: float = 0.0
    more_per_weight: float = 0.0
    memory_per_weight: float = 0.0
    resumable: bool = False
    then_drop: tuple[str, ...] = ()

    def room(self, scale: Scale) -> float:
        """Bytes of disk to have free before it is made."""
        if scale.name != "full":
            return _QUICK_BYTES
        return scale.parameters(self.weights) * (self.bytes_per_weight + self.more_per_weight)

    def memory(self, scale: Scale) -> float:
        """Bytes of memory to have free before it is made."""
        return scale.parameters(self.weights) * self.memory_per_weight if scale.name == "full" else 0.0


_LISTED = (
    Artefact("mini", OURS, (*_MAKE_CHECKPOINT, "mini", "{out}", "--size", "{scale}"), bytes_per_weight=2.0),
    Artefact(
        "mini-lean",
        OURS,
        (*_EXPORT, "{mini}", "--out", "{out}", *PROFILES["lean"]),
        needs=("mini",),
        bytes_per_weight=0.55,
        resumable=True,
    ),
    Artefact(
        "mini-fast",
        OURS,
        (*_EXPORT, "{mini}", "--out", "{out}", *PROFILES["fast"]),
        needs=("mini",),
        bytes_per_weight=1.47,
        resumable=True,
    ),
    Artefact(
        "mini-bf16.gguf",
        OURS,
        (*_EXPORT, "{mini}", "--format", "gguf", "--dtype", "bfloat16", "--out", "{out}"),
        needs=("mini",),
        bytes_per_weight=2.0,
    ),
    Artefact(
        "mini-q4_0.gguf",
        "llamacpp",
        ("{python}", "-P", "-m", "peers.quantize_gguf", "{mini-bf16.gguf}", "{out}", "{threads}"),
        needs=("mini-bf16.gguf",),
        bytes_per_weight=0.57,
        then_drop=("mini-bf16.gguf",),
    ),
    Artefact(
        "mini-openvino",
        "openvino",
        (
            *("{bin}/optimum-cli", "export", "openvino", "--model", "{mini}"),
            *("--task", "text-generation-with-past", "--weight-format", "int4"),
            *("--group-size", "128", "--ratio", "1.0", "--sym", "{out}"),
        ),
        needs=("mini",),
        bytes_per_weight=0.65,
        more_per_weight=2.0,
        memory_per_weight=2.5,
    ),
    Artefact(
        "mini-genai",
        "genai",
        (
            *("{python}", "-m", "onnxruntime_genai.models.builder", "-i", "{mini}", "-o", "{out}"),
            *("-p", "int4", "-e", "cpu", "-c", "{out}-cache"),
        ),
        needs=("mini",),
        bytes_per_weight=0.65,
        more_per_weight=2.0,
        memory_per_weight=5.2,  # about 20 GB were seen
    ),
    Artefact(
        "multimodal",
        OURS,
        (*_MAKE_CHECKPOINT, "multimodal", "{out}", "--size", "{scale}"),
        weights="multimodal",
        bytes_per_weight=2.1,
    ),
    Artefact(
        "multimodal-fast",
        OURS,
        (*_EXPORT, "{multimodal}", "--out", "{out}", *PROFILES["fast"]),
        needs=("multimodal",),
        weights="multimodal",
        bytes_per_weight=1.5,
        resumable=True,
    ),
    Artefact(
        MEDIA,
        OURS,
        ("{python}", "-P", "-m", "peers.write_media", "{multimodal}", "{out}", "{seconds}"),
        needs=("multimodal",),
        weights="multimodal",
        bytes_per_weight=0.01,
    ),
)
ARTEFACTS = {artefact.name: artefact for artefact in _LISTED}

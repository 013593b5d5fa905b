"""One GGUF file from a checkpoint: the metadata of llama.cpp's "phi3" architecture, then the weights.

The weights are copied in blocks of rows, so the file is written in less memory than its largest tensor
takes. The same checkpoint gives the same bytes. The file has a `.part` name until it is complete.

Up to `original_max_position_embeddings` tokens llama.cpp computes what the reference does, if the context
it is told to allocate (`n_ctx`, `-c`) is no larger: it picks the rope factors by that allocation and not by
the length of a sequence. With `-c 4096` all sequences get the short ones; with more, or where a program
takes the model's 131,072 by default, all get the long ones, short prompts too, for which the reference
takes the short ones. Prompts given as text can become other ids than ours: its rules for cutting leave out
combining marks and tell upper from lower case in ASCII only, and white space after control tokens stays.
Its built-in chat formats (without `--jinja`) put in line breaks that this model was not trained with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import ml_dtypes
import numpy as np

from phi4.checkpoint import Checkpoint, TensorEntry, read_tensor, to_stored
from phi4.checkpoint.room import check_room
from phi4.configs import Phi4Config
from phi4.errors import InvalidRequest, MissingExtra
from phi4.gguf.vocabulary import add_vocabulary, read_vocabulary
from phi4.shapes import AnyArray
from phi4.version import __version__

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

GgufDtype = Literal["float16", "float32", "bfloat16"]
DTYPES: tuple[GgufDtype, ...] = get_args(GgufDtype)
_NUMPY: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_BLOCK_BYTES = 1 << 25
_SMALL_BYTES = 1 << 20
"""Room for metadata, names and the gaps between tensors."""
_TOKEN_BYTES = 40
"""At most what an entry of the vocabulary takes beside its text: lengths, type, a merge, a made-up name."""
# A `general.name` with "phi-3" or "phi3" in it makes llama.cpp look for a token "</s>" and fail.
_MODEL_NAME = "Phi-4 text decoder"


@dataclass(frozen=True)
class _Planned:
    """A tensor of the file: its name there, where it comes from, and the type it gets."""

    name: str
    entry: TensorEntry
    dtype: GgufDtype

    @property
    def nbytes(self) -> int:
        return self.entry.num_elements * _NUMPY[self.dtype].itemsize


def left_out(config: Phi4Config) -> tuple[str, ...]:
    """What the model has and its GGUF has not, in words; empty for a text model.

    llama.cpp's "phi3" is a text decoder: it has no place for encoders, and text alone uses no adapter.
    """
    encoders = [f"{part} encoder" for part in config.modalities if part != "text"]
    return (*encoders, *(f"adapter {adapter.name}" for adapter in config.adapters))


def write_gguf(
    checkpoint: Checkpoint,
    tokenizer_dir: Path,
    path: Path,
    dtype: GgufDtype,
    progress: Callable[[int, int], None] | None = None,
    *,
    force: bool = False,
) -> None:
    """Write the text decoder of a model as GGUF; see the module for what llama.cpp makes of it.

    Encoders and adapters stay behind (`left_out`), and the file's `general.description` says so. A tied
    output matrix is not written twice. Norms and rope factors are float32 in any case, as llama.cpp needs.

    Args:
        checkpoint: An open model, of any layout; its text part is enough.
        tokenizer_dir: Directory with the model's `tokenizer.json`.
        path: The file to write; its directory is made when missing. A failure or an interrupt leaves no
            `.part` file, a kill may, and the next call writes over it.
        dtype: Type of the matrices. "bfloat16" keeps released weights bit by bit, "float32" their values;
            "float16" rounds those below 6e-5 in magnitude. On a CPU llama.cpp rounds the activations to the
            type of the matrix, so "float32" comes closest to us, then "float16".
        progress: Called with the bytes of weights written so far and in total.
        force: Replace an earlier file of this name, which is as it was until the new one is complete.

    Raises:
        InvalidRequest: Unknown dtype, `path` is there already, the disk is too full, or a weight is beyond
            float16.
        InvalidArtifact: The tokenizer cannot be used by llama.cpp, or a file changed under our hands.
        CheckpointMismatch: Tensors of the decoder are missing or misshapen.
        MissingExtra: The `gguf` package is not installed.
    """
    try:
        from gguf import GGUFWriter
    except ImportError as problem:
        raise MissingExtra(
            f"writing GGUF needs the package gguf ({problem}); "
            "install the extra, from the checkout: pip install '.[export]'"
        ) from None
    if dtype not in DTYPES:
        raise InvalidRequest(f"dtype {dtype!r} is unknown to this export; choose one of {', '.join(DTYPES)}")
    _check_free(path, force)
    checkpoint.check(("text",), ())
    vocabulary = read_vocabulary(tokenizer_dir, checkpoint.config.decoder.vocab_size)
    check_room(path, room_bytes(checkpoint, tokenizer_dir, dtype), "the file")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with closing(GGUFWriter(part, "phi3")) as writer:
            _describe(writer, checkpoint.config, dtype)
            add_vocabulary(writer, vocabulary)
            _write_tensors(writer, checkpoint, dtype, progress or (lambda done, total: None))
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def room_bytes(checkpoint: Checkpoint, tokenizer_dir: Path, dtype: GgufDtype) -> int:
    """At most what the file takes; see `write_gguf`."""
    weights = sum(item.nbytes for item in _plan(checkpoint, dtype))
    texts = (tokenizer_dir / "tokenizer.json").stat().st_size
    return weights + texts + _TOKEN_BYTES * checkpoint.config.decoder.vocab_size + _SMALL_BYTES


def _check_free(path: Path, force: bool) -> None:
    if path.is_dir():
        raise InvalidRequest(f"{path}: a directory; give the name of the file to write")
    if path.exists() and not force:
        raise InvalidRequest(
            f"{path}: is there already; delete it, give another name, or replace it (--force)"
        )


def _describe(writer: GGUFWriter, config: Phi4Config, dtype: GgufDtype) -> None:
    """Metadata of the network.

    Source: the keys llama.cpp's loader reads for "phi3", and those its converter writes for Phi-4-mini. The
    released `sliding_window` is longer than the context, so it is written as 0 = none, which every version
    since Phi-4 reads as full attention. There is no key for the kind of rope scaling: the two lists of
    factors and `attn_factor` (which llama.cpp applies to both regimes) say it all.
    """
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    decoder = config.decoder
    absent = left_out(config)
    writer.add_type("model")
    writer.add_name(_MODEL_NAME)
    writer.add_description(
        f"Written by phi4 {__version__}: the text decoder"
        + (f"; left out: {', '.join(absent)}." if absent else ".")
    )
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_file_type(
        {
            "float32": LlamaFileType.ALL_F32,
            "float16": LlamaFileType.MOSTLY_F16,
            "bfloat16": LlamaFileType.MOSTLY_BF16,
        }[dtype]
    )
    writer.add_context_length(decoder.max_position_embeddings)
    writer.add_embedding_length(decoder.hidden_size)
    writer.add_feed_forward_length(decoder.intermediate_size)
    writer.add_block_count(decoder.num_hidden_layers)
    writer.add_head_count(decoder.num_attention_heads)
    writer.add_head_count_kv(decoder.num_key_value_heads)
    writer.add_layer_norm_rms_eps(decoder.rms_norm_eps)
    writer.add_sliding_window(0)
    writer.add_rope_dimension_count(decoder.rotary_dim)
    writer.add_rope_freq_base(decoder.rope_theta)
    writer.add_rope_scaling_orig_ctx_len(decoder.original_max_position_embeddings)
    writer.add_rope_scaling_attn_factors(decoder.attention_factor)


def _write_tensors(
    writer: GGUFWriter, checkpoint: Checkpoint, dtype: GgufDtype, progress: Callable[[int, int], None]
) -> None:
    """Announce every tensor, then copy one after the other in the order announced."""
    factors = _rope_factors(checkpoint.config)
    planned = _plan(checkpoint, dtype)
    for name, array in factors.items():
        writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes)
    for item in planned:
        kind = _gguf_type(item.dtype)
        writer.add_tensor_info(item.name, item.entry.shape, _NUMPY[item.dtype], item.nbytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    done, total = 0, sum(array.nbytes for array in factors.values()) + sum(item.nbytes for item in planned)
    for blocks in (*((array,) for array in factors.values()), *(_blocks(item) for item in planned)):
        for block in blocks:
            file.write(block.reshape(-1).view(np.uint8).data)
            done += block.nbytes
            progress(done, total)
        writer.write_padding(file, file.tell())
    file.flush()
    os.fsync(file.fileno())


def _plan(checkpoint: Checkpoint, dtype: GgufDtype) -> list[_Planned]:
    """The decoder's own tensors under llama.cpp's names; fused projections stay fused there."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH.PHI3, checkpoint.config.decoder.num_hidden_layers)
    planned = []
    for ours in checkpoint.names(("text",), ()):
        stored = to_stored(ours, "mini")
        name = names.get_name(stored, try_suffixes=(".weight",)) if stored else None
        assert name is not None, f"{ours} has no name in GGUF"
        entry = checkpoint.entries[ours]
        planned.append(_Planned(name, entry, "float32" if len(entry.shape) == 1 else dtype))
    return planned


def _rope_factors(config: Phi4Config) -> dict[str, AnyArray]:
    """Divisors of the rotary frequencies, `[rotary_dim / 2]` each, float32."""
    from gguf import MODEL_TENSOR, TENSOR_NAMES

    long, short = MODEL_TENSOR.ROPE_FACTORS_LONG, MODEL_TENSOR.ROPE_FACTORS_SHORT
    return {
        f"{TENSOR_NAMES[long]}.weight": np.asarray(config.decoder.long_factor, "<f4"),
        f"{TENSOR_NAMES[short]}.weight": np.asarray(config.decoder.short_factor, "<f4"),
    }


def _gguf_type(dtype: GgufDtype) -> GGMLQuantizationType:
    from gguf import GGMLQuantizationType

    types = GGMLQuantizationType
    return {"float16": types.F16, "float32": types.F32, "bfloat16": types.BF16}[dtype]


def _blocks(item: _Planned) -> Iterator[AnyArray]:
    """The values of a tensor in their new type, a bounded number of whole rows at a time."""
    for rows in _row_blocks(item.entry):
        yield _converted(read_tensor(rows), item)


def _row_blocks(entry: TensorEntry) -> Iterator[TensorEntry]:
    """A tensor as pieces of whole rows, each an entry of its own."""
    num_rows = entry.shape[0]
    row_bytes = entry.nbytes // num_rows
    step = max(1, _BLOCK_BYTES // row_bytes)
    for first in range(0, num_rows, step):
        count = min(step, num_rows - first)
        shape, offset = (count, *entry.shape[1:]), entry.offset + first * row_bytes
        yield replace(entry, shape=shape, offset=offset, nbytes=count * row_bytes)


def _converted(block: AnyArray, item: _Planned) -> AnyArray:
    target = _NUMPY[item.dtype]
    if block.dtype == target:
        return block
    with np.errstate(over="ignore"):
        converted: AnyArray = block.astype(np.float32).astype(target)
    if item.dtype == "float16" and not np.isfinite(converted).all():
        raise InvalidRequest(
            f"tensor {item.entry.stored_name} has values that float16 cannot hold (beyond 65504, or not "
            "finite); write the file as bfloat16 or float32"
        )
    return converted

"""Objectives: pure functions from a batch to a loss and metrics.

`pretrain` and `sft` share the next-token loss over the batch's target positions (for packed text that
is every token, for dialogues the answers). `sft` can add a CTC loss on the speech encoder's output and
a character loss on the vision tower's patches; `ctc` and `glyphs` are those losses alone, without
running the decoder: the cheap warm start of the encoders.
Metrics are detached 0-dim tensors on the device; nothing here waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from phi4.errors import TrainingError
from phi4.model.multimodal import Phi4Model
from phi4.train.batch import TrainBatch
from phi4.train.collate import IGNORED
from phi4.train.glyphs import NUM_CLASSES
from phi4.train.settings import TaskShare

_BLANK_FIRST = 1  # CTC class 0 is the blank, token id i is class i + 1


@dataclass(frozen=True)
class Outcome:
    """A loss to differentiate (0-dim) and numbers to log."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Trainee(nn.Module):
    """The model with what only training needs beside it.

    `heads.blank` scores CTC's blank beside the decoder's vocabulary, `heads.glyphs` maps patches to
    characters; they are saved in training checkpoints and never exported.

    Args:
        model: What is trained.
        ctc: Whether a blank for CTC is wanted; needs a speech encoder.
        glyphs: Whether a character head is wanted; needs a vision tower.
    """

    def __init__(self, model: Phi4Model, ctc: bool, glyphs: bool = False) -> None:
        super().__init__()
        self.model = model
        self.heads = nn.ModuleDict()
        if ctc:
            config = model.config
            if config.speech is None:
                raise TrainingError("a CTC loss needs a model with a speech encoder")
            self.heads["blank"] = nn.Linear(config.decoder.hidden_size, 1)
        if glyphs:
            if model.config.vision is None:
                raise TrainingError("a character loss needs a model with a vision tower")
            self.heads["glyphs"] = nn.Linear(model.config.vision.hidden_size, NUM_CLASSES)

    def canonical(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by canonical name: the model's own, and `heads.*`."""
        return {name.removeprefix("model."): parameter for name, parameter in self.named_parameters()}


def next_token(trainee: Trainee, batch: TrainBatch, hidden: Tensor) -> Outcome:
    """Mean cross entropy over the target positions.

    Args:
        trainee: For its output matrix.
        batch: Places and ids of the targets.
        hidden: `[B, T, D]` from the model.
    """
    chosen = hidden.flatten(0, 1).index_select(0, batch.target_positions)  # [n, D]
    logits = trainee.model.logits(chosen).float()  # [n, V]
    loss = functional.cross_entropy(logits, batch.targets, ignore_index=IGNORED)
    with torch.no_grad():
        real = batch.targets != IGNORED
        hits = (logits.argmax(dim=-1) == batch.targets) & real
        accuracy = hits.sum() / real.sum()
    return Outcome(loss, {"loss": loss.detach(), "accuracy": accuracy})


def vocabulary_logits(trainee: Trainee, vectors: Tensor) -> Tensor:
    """What media vectors say in the decoder's own vocabulary: its final norm, then its output matrix.

    Training encoders through this matrix, which is also the embedding, puts media where the text tokens
    already are; the decoder can then use them with what it learnt on text. `[n, D]` to `[n, V]`, fp32.
    """
    model = trainee.model
    return model.logits(model.decoder.norm(vectors)).float()


def ctc_loss(trainee: Trainee, batch: TrainBatch, vectors: Tensor) -> Tensor:
    """Connectionist temporal classification of projected recordings against transcripts, per target token.

    Args:
        trainee: For its blank.
        batch: Transcripts; recordings without one, or with one too long for their frames, count zero.
        vectors: `[N_1 + N_2 + ..., D]` projector output of all recordings, one after the other.
    """
    audios, speech = batch.model.audios, trainee.model.config.speech
    if audios is None or batch.transcripts is None or batch.transcribed is None or speech is None:
        raise TrainingError("a CTC loss needs rows with recordings")
    lengths = [speech.num_tokens(count) for count in audios.num_frames]
    logits = torch.cat((trainee.heads["blank"](vectors).float(), vocabulary_logits(trainee, vectors)), dim=-1)
    padded = _padded(logits, lengths)  # [N_max, recordings, 1 + V]
    losses = functional.ctc_loss(
        functional.log_softmax(padded, dim=-1),
        batch.transcripts + _BLANK_FIRST,
        torch.tensor(lengths),
        torch.tensor(batch.transcript_lengths),
        reduction="none",
        zero_infinity=True,
    )
    return (losses * batch.transcribed).sum() / max(1, sum(batch.transcript_lengths))


def _padded(rows: Tensor, lengths: Sequence[int]) -> Tensor:
    """`[N_1 + N_2 + ..., V]` as `[N_max, recordings, V]`, zeros behind the shorter ones.

    One indexed copy: the gradient of `pad_sequence` writes the whole padded tensor once per recording.
    """
    number = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    frame = torch.cat([torch.arange(length) for length in lengths])
    places = (frame * len(lengths) + number).to(rows.device)
    flat = rows.new_zeros(max(lengths) * len(lengths), rows.shape[-1]).index_copy(0, places, rows)
    return flat.view(max(lengths), len(lengths), -1)


def glyph_loss(trainee: Trainee, batch: TrainBatch, features: Tensor, vectors: Tensor) -> Outcome:
    """How well the tower knows its characters and the projector its pieces of text: two mean losses, added.

    Args:
        trainee: For its character head.
        batch: Places and classes of characters and pieces.
        features: `[C, P, D_vision]` tower output of all crops of all pictures.
        vectors: `[N_1 + N_2 + ..., D]` projector output of all pictures, one after the other.
    """
    if batch.glyphs is None or batch.pieces is None:
        raise TrainingError("a character loss needs pictures whose characters are known")
    places, classes = batch.glyphs.unbind(1)
    logits = trainee.heads["glyphs"](features.flatten(0, 1).index_select(0, places)).float()
    characters = functional.cross_entropy(logits, classes, ignore_index=IGNORED)
    cells, ids = batch.pieces.unbind(1)
    pieces = functional.cross_entropy(
        vocabulary_logits(trainee, vectors.index_select(0, cells)), ids, ignore_index=IGNORED
    )
    return Outcome(characters + pieces, {"glyphs": characters.detach(), "pieces": pieces.detach()})


@contextmanager
def _outputs(module: nn.Module) -> Iterator[list[Any]]:
    """Collects what a module returns inside the `with`."""
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda module, given, made: seen.append(made))
    try:
        yield seen
    finally:
        handle.remove()


def pretrain(trainee: Trainee, batch: TrainBatch) -> Outcome:
    """Next token of packed text."""
    return next_token(trainee, batch, trainee.model(batch.model))


def sft(trainee: Trainee, batch: TrainBatch, ctc_weight: float = 0.0, glyph_weight: float = 0.0) -> Outcome:
    """Next token of the answers, optionally plus weighted losses of the encoders by themselves."""
    model = trainee.model
    with ExitStack() as stack:
        heard = seen = None
        if ctc_weight and batch.model.audios is not None and model.speech is not None:
            heard = stack.enter_context(_outputs(model.speech))
        if glyph_weight and batch.glyphs is not None and model.vision is not None:
            seen = stack.enter_context(_outputs(model.vision.img_processor))
            seen_vectors = stack.enter_context(_outputs(model.vision))
        outcome = next_token(trainee, batch, model(batch.model))
    if heard:
        extra = ctc_loss(trainee, batch, heard[0][0])
        outcome = Outcome(outcome.loss + ctc_weight * extra, {**outcome.metrics, "ctc": extra.detach()})
    if seen:
        reading = glyph_loss(trainee, batch, seen[0], seen_vectors[0][0])
        outcome = Outcome(outcome.loss + glyph_weight * reading.loss, {**outcome.metrics, **reading.metrics})
    return outcome


def ctc(trainee: Trainee, batch: TrainBatch) -> Outcome:
    """The CTC loss alone, mean over both projectors on the same encoder states; the decoder does not run."""
    audios = batch.model.audios
    if audios is None or trainee.model.speech is None:
        raise TrainingError("the ctc objective needs a speech encoder and rows with recordings")
    model = trainee.model
    speech = trainee.model.speech
    states = speech.encoder(audios.features, audios.num_frames, model.encoder_attention)
    losses = [ctc_loss(trainee, batch, project(states)) for project in speech.audio_projection.values()]
    loss = torch.stack(losses).mean()
    return Outcome(loss, {"ctc": loss.detach()})


def glyphs(trainee: Trainee, batch: TrainBatch) -> Outcome:
    """The character loss alone; the decoder does not run."""
    images, model = batch.model.images, trainee.model
    if images is None or model.vision is None:
        raise TrainingError("the glyphs objective needs a vision tower and rows with pictures")
    with _outputs(model.vision.img_processor) as seen:
        vectors, _ = model.vision(images, model.encoder_attention)
    return glyph_loss(trainee, batch, seen[0], vectors)


def outcome_of(task: TaskShare, trainee: Trainee, batch: TrainBatch) -> Outcome:
    """The objective a task asks for, applied."""
    if task.objective == "ctc":
        return ctc(trainee, batch)
    if task.objective == "glyphs":
        return glyphs(trainee, batch)
    if task.objective == "pretrain":
        return pretrain(trainee, batch)
    return sft(trainee, batch, task.ctc_weight, task.glyph_weight)

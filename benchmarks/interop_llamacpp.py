"""Does llama.cpp answer as we do? Greedy tokens of a GGUF against those of the model it was written from.

    python benchmarks/interop_llamacpp.py nano.gguf --model nano --lengths 2,500,4032
    python benchmarks/interop_llamacpp.py mini.gguf --model mini-onnx --runner onnx --prompts ids.json

Both sides get token ids, so the comparison is of the networks; whether llama.cpp also cuts the built-in
prompts into the same ids is printed beside it. "Equal" is every token, or a first difference where our own
two best candidates lie within `--margin` (in log-probability): those are counted apart, never hidden.
`--lengths` adds prompts of random ordinary ids, whose answers no token ends. All sequences stay in the short
LongRoPE regime, and llama.cpp is told to allocate no more than that.

Exit status: 0 = equal, 1 = a difference beyond the margin, 2 = cannot be run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import phi4
from phi4.engine.request import text_piece
from phi4.engine.runner import Draw, ModelRunner, Nothing, Row, SequenceSpec, StepPlan
from phi4.errors import Phi4Error
from phi4.processing.chat import ChatRenderer
from phi4.processing.messages import parse_messages
from phi4.processing.tokenizer import Phi4Tokenizer

QUESTIONS = (
    "Hi, who are you?",
    "What is 17 + 25?",
    "Turn on the light in the kitchen, please.",
    "Write one sentence about the sea.",
    "Name the months of the year, each on a line of its own.",
    "def fibonacci(n):\n    ",
)
LENGTHS_HELP = "lengths of further prompts, of random ids, with commas"
INSTALL = (
    "llama-cpp-python is not installed: `make interop` compiles it, with a barrier without which gcc 12 makes"
    " a program that crashes on processors with AMX (benchmarks/peers/patch_llamacpp.py)"
)


@dataclass(frozen=True)
class Prompt:
    """Token ids, the text they were made from if there is one, and whether a stop token ends the answer."""

    ids: list[int]
    text: str | None = None
    stops: bool = True

    def name(self, number: int) -> str:
        """What reports call it."""
        return f"prompt {number} ({len(self.ids)} tokens)"


@dataclass(frozen=True)
class Answer:
    """Greedy tokens, and at each the gap between the two best log-probabilities."""

    tokens: list[int]
    gaps: list[float]


def answer_of_runner(runner: ModelRunner, prompt: Prompt, count: int, stops: Collection[int]) -> Answer:
    """Decode with one of our runners, adapters off."""
    answer = Answer([], [])
    slot = runner.open(SequenceSpec((), "short", len(prompt.ids) + count))
    fed, most = prompt.ids, runner.info.max_step_tokens
    while len(fed) > most:
        runner.step(StepPlan((Row(slot, (text_piece(fed[:most]),), Nothing()),)))
        fed = fed[most:]
    while len(answer.tokens) < count and not (answer.tokens and answer.tokens[-1] in stops):
        row = Row(slot, (text_piece(fed),), Draw(num_top=2))
        result = runner.step(StepPlan((row,))).rows[0]
        fed = [int(result.token_ids[-1])]
        answer.tokens.append(fed[0])
        best, second = result.top_logprobs[-1]
        answer.gaps.append(float(best - second))
    runner.close(slot)
    return answer


class LlamaCpp:
    """llama.cpp on the CPU with a float32 cache, as exact as its kernels for the file's type are.

    Args:
        path: The GGUF.
        num_ctx: Context to allocate, which is also what picks the rope factors.
        threads: Threads to compute with.
    """

    def __init__(self, path: Path, num_ctx: int, threads: int) -> None:
        import llama_cpp

        self.library: Any = llama_cpp
        f32 = 0  # GGML_TYPE_F32
        self.model = llama_cpp.Llama(
            str(path),
            n_ctx=num_ctx,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=0,
            type_k=f32,
            type_v=f32,
            verbose=False,
        )

    def answer(self, prompt: Prompt, count: int, stops: Collection[int]) -> Answer:
        """Decode greedily; ties go to the lower id, as ours do."""
        answer = Answer([], [])
        self.model.reset()
        fed = prompt.ids
        while len(answer.tokens) < count and not (answer.tokens and answer.tokens[-1] in stops):
            self.model.eval(fed)
            pointer = self.library.llama_get_logits_ith(self.model.ctx, -1)
            logits = np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab(),))
            second, best = np.partition(logits, -2)[-2:]
            fed = [int(logits.argmax())]
            answer.tokens.append(fed[0])
            answer.gaps.append(float(best - second))
        return answer

    def ids(self, text: str) -> list[int]:
        """Token ids it makes of a rendered prompt."""
        found: list[int] = self.model.tokenize(text.encode(), add_bos=False, special=True)
        return found


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """Index of the first token that differs; None = equal, since equal answers stop at the same token."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((index for index, (our, their) in pairs if our != their), None)


def report(name: str, ours: Answer, theirs: Answer, margin: float) -> str:
    """Print one comparison and say what it is: "equal", "within the margin" or "different"."""
    at = first_difference(ours.tokens, theirs.tokens)
    if at is None:
        print(f"{name}: equal, {len(ours.tokens)} tokens, smallest gap {min(ours.gaps):.2e}")
        return "equal"
    verdict = "within the margin" if ours.gaps[at] < margin else "different"
    print(
        f"{name}: {verdict} at token {at} of {len(ours.tokens)}: ours {ours.tokens[at]} "
        f"(gap {ours.gaps[at]:.2e}), llama.cpp {theirs.tokens[at]} (gap {theirs.gaps[at]:.2e})"
    )
    return verdict


def read_prompts(path: Path | None, tokenizer: Phi4Tokenizer) -> list[Prompt]:
    """Lists of token ids from a JSON file, or the built-in questions as chat turns."""
    if path is not None:
        return [Prompt([int(token) for token in ids]) for ids in json.loads(path.read_text(encoding="utf-8"))]
    renderer = ChatRenderer(tokenizer)
    chats = [renderer.render(parse_messages([{"role": "user", "content": text}])) for text in QUESTIONS]
    return [Prompt(list(chat.token_ids), chat.text) for chat in chats]


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from 1, with commas between them."""
    found = tuple(int(part) for part in text.split(","))
    if min(found) < 1:
        raise ValueError(f"{text}: give whole numbers from 1")
    return found


def random_prompts(lengths: Sequence[int], tokenizer: Phi4Tokenizer) -> list[Prompt]:
    """One prompt of random ids, none of them a control token, for each length; the same in every run.

    Stop tokens do not end their answers: after noise they often come first.
    """
    ordinary = sorted(set(range(tokenizer.vocab_size)) - tokenizer.control_ids)
    return [Prompt(random.Random(length).choices(ordinary, k=length), stops=False) for length in lengths]


def compare(llama: LlamaCpp, model: phi4.Phi4, prompts: Sequence[Prompt], count: int, margin: float) -> int:
    """Decode every prompt on both sides; returns the exit status."""
    runner, stops = model.generator.runner, model.tokenizer.tokens.stop_ids
    verdicts = []
    for number, prompt in enumerate(prompts):
        ends = stops if prompt.stops else ()
        ours = answer_of_runner(runner, prompt, count, ends)
        verdicts.append(report(prompt.name(number), ours, llama.answer(prompt, count, ends), margin))
        if prompt.text is not None and llama.ids(prompt.text) != prompt.ids:
            print(f"prompt {number}: llama.cpp makes other ids of its text: {llama.ids(prompt.text)}")
    kinds = ("equal", "within the margin", "different")
    print(", ".join(f"{verdicts.count(kind)} {kind}" for kind in kinds), f"(margin {margin:g})")
    return int("different" in verdicts)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path, help="file written by `phi4 export --format gguf`")
    parser.add_argument("--model", default="nano", help="the model it was written from, or its ONNX package")
    parser.add_argument("--runner", default="torch", help="our backend (default: torch)")
    parser.add_argument("--dtype", help="its arithmetic (default: float32 with torch)")
    parser.add_argument("--prompts", type=Path, help="JSON list of lists of token ids")
    parser.add_argument("--lengths", type=numbers, default=(), help=LENGTHS_HELP)
    parser.add_argument("--tokens", type=int, default=64, help="most tokens per answer (default: 64)")
    parser.add_argument("--margin", type=float, default=1e-4, help="gap that excuses a difference")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="for llama.cpp")
    return parser


def main() -> int:
    """Run the comparison."""
    parser = arguments()
    args = parser.parse_args()
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        parser.error(INSTALL)
    dtype = args.dtype or ("float32" if args.runner == "torch" else None)
    try:
        model = phi4.load(args.model, runner=args.runner, dtype=dtype, modalities=("text",))
        prompts = read_prompts(args.prompts, model.tokenizer) + random_prompts(args.lengths, model.tokenizer)
        limit = model.config.decoder.original_max_position_embeddings
        needed = max(len(prompt.ids) for prompt in prompts) + args.tokens
        num_ctx = -(-needed // 256) * 256  # llama.cpp rounds up as well
        if num_ctx > limit:
            parser.error(f"prompt and answer take a context of {num_ctx}, the short regime ends at {limit}")
        llama = LlamaCpp(args.gguf, num_ctx, args.threads)
        return compare(llama, model, prompts, args.tokens, args.margin)
    except Phi4Error as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())

"""Does onnxruntime-genai answer as we do? Greedy tokens of a package in both.

    python benchmarks/interop_genai.py nano-onnx
    python benchmarks/interop_genai.py nano-onnx --lengths 2,500,4032,4090
    python benchmarks/interop_genai.py nano-onnx --prompts ids.json --tokens 200

The package must have been exported with genai's files (`genai_config.json`). Both sides get token ids, so the
comparison is of the networks; whether genai also renders and cuts the built-in prompts alike is printed
beside it. Every prompt is decoded alone and, where weights are floats, once more in a padded batch:
with 4 or 8 bits a row of a batch rounds its activations otherwise than a row alone, here and there. "Equal"
is every token, or a first difference where our own two best candidates lie within `--margin` (in
log-probability): those are counted apart, never hidden.

Exit status: 0 = equal, 1 = a difference beyond the margin, 2 = cannot be run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from interop_llamacpp import (
    LENGTHS_HELP,
    QUESTIONS,
    Answer,
    Prompt,
    first_difference,
    numbers,
    random_prompts,
    read_prompts,
)

import phi4
from phi4.configs.decoder import DecoderConfig
from phi4.configs.rope import regime_for
from phi4.engine.request import text_piece
from phi4.engine.runner import Draw, ModelRunner, Nothing, Row, SequenceSpec, Slot, StepPlan
from phi4.errors import Phi4Error
from phi4.onnx.machine.threads import thread_count
from phi4.onnx.package.description import read_description

INSTALL = (
    "onnxruntime-genai is not installed; install it beside phi4: "
    "pip install --no-deps onnxruntime-genai (phi4 brings the onnxruntime it needs)"
)
KINDS = ("equal", "within the margin", "different")


class Ours:
    """Our runner, adapters off, with the cache made anew where the LongRoPE regime changes.

    Args:
        runner: Any runner of the model.
        config: Its decoder.
        stops: Ids that end an answer.
    """

    def __init__(self, runner: ModelRunner, config: DecoderConfig, stops: Collection[int]) -> None:
        self.runner, self.config, self.stops = runner, config, stops

    def answer(self, prompt: Prompt, count: int) -> Answer:
        """Decode greedily."""
        answer, regime = Answer([], []), None
        slot: Slot | None = None
        stops = self.stops if prompt.stops else ()
        while len(answer.tokens) < count and not (answer.tokens and answer.tokens[-1] in stops):
            ids = [*prompt.ids, *answer.tokens]
            if regime_for(self.config, len(ids)) != regime:
                if slot is not None:
                    self.runner.close(slot)
                regime = regime_for(self.config, len(ids))
                slot = self.runner.open(SequenceSpec((), regime, len(prompt.ids) + count))
            else:
                ids = ids[-1:]
            assert slot is not None
            self._draw(slot, ids, answer)
        if slot is not None:
            self.runner.close(slot)
        return answer

    def _draw(self, slot: Slot, ids: Sequence[int], answer: Answer) -> None:
        """Append ids to a sequence and its best continuation to the answer."""
        most = self.runner.info.max_step_tokens
        for start in range(0, len(ids), most):
            rest = len(ids) - start > most
            piece = text_piece(list(ids[start : start + most]))
            row = Row(slot, (piece,), Nothing() if rest else Draw(num_top=2))
            result = self.runner.step(StepPlan((row,))).rows[0]
        best, second = result.top_logprobs[-1]
        answer.tokens.append(int(result.token_ids[-1]))
        answer.gaps.append(float(best - second))


class Genai:
    """onnxruntime-genai on the CPU with a package's own `genai_config.json`.

    Args:
        folder: The package.
        threads: Threads to compute with; left to itself, genai takes one for each core of the machine.
        end: The token that ends answers in place of those the package names: one that does not come.
    """

    def __init__(self, folder: Path, threads: int, end: int | None = None) -> None:
        import onnxruntime_genai

        self.library: Any = onnxruntime_genai
        config = onnxruntime_genai.Config(str(folder))
        options = {"decoder": {"session_options": {"intra_op_num_threads": threads}}}
        config.overlay(json.dumps({"model": options if end is None else options | {"eos_token_id": end}}))
        self.model = onnxruntime_genai.Model(config)
        self.tokenizer = onnxruntime_genai.Tokenizer(self.model)
        self.pad = int(self.tokenizer.pad_token_id)

    def answers(self, prompts: Sequence[Prompt], count: int, stops: Collection[int]) -> list[list[int]]:
        """Decode prompts as one batch, greedily; each answer ends at its own stop token."""
        width = max(len(prompt.ids) for prompt in prompts)
        params = self.library.GeneratorParams(self.model)
        params.set_search_options(batch_size=len(prompts), max_length=width + count, do_sample=False)
        generator = self.library.Generator(self.model, params)
        rows = np.full((len(prompts), width), self.pad, np.int32)
        for row, prompt in zip(rows, prompts, strict=True):
            row[: len(prompt.ids)] = prompt.ids
        generator.append_tokens(rows)
        steps: list[list[int]] = []
        while len(steps) < count and not generator.is_done():
            generator.generate_next_token()
            steps.append([int(token) for token in generator.get_next_tokens()])
        return [_until(stops, tokens) for tokens in zip(*steps, strict=True)]

    def rendered(self, question: str) -> str:
        """A question as a chat turn, by the package's template."""
        messages = json.dumps([{"role": "user", "content": question}])
        return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def ids(self, text: str) -> list[int]:
        """Token ids it makes of a rendered prompt."""
        return [int(token) for token in self.tokenizer.encode(text)]


def _until(stops: Collection[int], tokens: Sequence[int]) -> list[int]:
    """Tokens up to the first that ends an answer, which belongs to it."""
    ends = [place for place, token in enumerate(tokens) if token in stops]
    return list(tokens[: ends[0] + 1]) if ends else list(tokens)


def report(name: str, ours: Answer, theirs: Sequence[int], margin: float) -> str:
    """Print one comparison and say which of `KINDS` it is."""
    at = first_difference(ours.tokens, theirs)
    if at is None and len(ours.tokens) == len(theirs):
        print(f"{name}: equal, {len(theirs)} tokens, smallest gap {min(ours.gaps):.2e}")
        return "equal"
    if at is None:
        print(f"{name}: different: ours has {len(ours.tokens)} tokens, genai's {len(theirs)}")
        return "different"
    verdict = "within the margin" if ours.gaps[at] < margin else "different"
    print(
        f"{name}: {verdict} at token {at} of {len(ours.tokens)}: ours {ours.tokens[at]} "
        f"(gap to the second {ours.gaps[at]:.2e}), genai {theirs[at]}"
    )
    return verdict


def report_text(genai: Genai, prompts: Sequence[Prompt]) -> None:
    """Print what genai makes of the built-in questions as text, where it differs."""
    unlike = 0
    for number, (question, prompt) in enumerate(zip(QUESTIONS, prompts, strict=False)):
        if prompt.text is None:
            return
        rendered = genai.rendered(question)
        if rendered != prompt.text:
            print(f"prompt {number}: genai renders {rendered!r}")
        if genai.ids(prompt.text) != prompt.ids:
            print(f"prompt {number}: genai makes other ids of its text: {genai.ids(prompt.text)}")
        unlike += rendered != prompt.text or genai.ids(prompt.text) != prompt.ids
    print(f"chat template and tokenizer: {len(QUESTIONS) - unlike} of {len(QUESTIONS)} prompts alike")


def batched(
    folder: Path, ours: Ours, prompts: Sequence[Prompt], count: int, stops: bool
) -> dict[int, Prompt]:
    """Prompts that have to give in one batch what each gives alone, by number."""
    if read_description(folder).precision["decoder"] not in ("fp32", "fp16"):
        return {}
    # genai makes the cache anew where the regime changes for rows alone only.
    most = ours.config.original_max_position_embeddings - count
    chosen = {number: prompt for number, prompt in enumerate(prompts) if len(prompt.ids) <= most}
    return {number: prompt for number, prompt in chosen.items() if prompt.stops == stops}


def compare(
    sides: Mapping[bool, Genai], ours: Ours, prompts: Sequence[Prompt], count: int, margin: float
) -> list[str]:
    """Decode every prompt alone, by the one of genai's models that a stop token ends or the other."""
    verdicts = []
    for number, prompt in enumerate(prompts):
        stops = ours.stops if prompt.stops else ()
        (alone,) = sides[prompt.stops].answers([prompt], count, stops)
        verdicts.append(report(prompt.name(number), ours.answer(prompt, count), alone, margin))
    return verdicts


def compare_batch(
    genai: Genai, ours: Ours, prompts: Mapping[int, Prompt], count: int, margin: float
) -> list[str]:
    """Decode prompts together, all of them ended by a stop token or none."""
    if len(prompts) < 2:
        return []
    stops = ours.stops if all(prompt.stops for prompt in prompts.values()) else ()
    together = genai.answers(list(prompts.values()), count, stops)
    return [
        report(f"{prompt.name(number)} in a batch", ours.answer(prompt, count), tokens, margin)
        for (number, prompt), tokens in zip(prompts.items(), together, strict=True)
    ]


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="folder written by `phi4 export`")
    parser.add_argument("--prompts", type=Path, help="JSON list of lists of token ids")
    parser.add_argument("--lengths", type=numbers, default=(), help=LENGTHS_HELP)
    parser.add_argument("--tokens", type=int, default=64, help="most tokens per answer (default: 64)")
    parser.add_argument("--margin", type=float, default=1e-4, help="gap that excuses a difference")
    parser.add_argument("--threads", type=int, help="for genai (default: the CPUs this process may use)")
    return parser


def main() -> int:
    """Run the comparison."""
    parser = arguments()
    args = parser.parse_args()
    try:
        import onnxruntime_genai  # noqa: F401
    except ImportError:
        parser.error(INSTALL)
    if not (args.package / "genai_config.json").is_file():
        parser.error(f"{args.package}: has no genai_config.json; export the model again with this phi4")
    try:
        model = phi4.load(args.package, runner="onnx", modalities=("text",))
        prompts = read_prompts(args.prompts, model.tokenizer) + random_prompts(args.lengths, model.tokenizer)
        ours = Ours(model.generator.runner, model.config.decoder, model.tokenizer.tokens.stop_ids)
        threads, tokens = thread_count(args.threads), model.tokenizer.tokens
        sides = {True: Genai(args.package, threads)}
        if args.lengths:
            sides[False] = Genai(args.package, threads, tokens.system)
        report_text(sides[True], prompts)
        verdicts = compare(sides, ours, prompts, args.tokens, args.margin)
        for stops, genai in sides.items():
            batch = batched(args.package, ours, prompts, args.tokens, stops)
            verdicts += compare_batch(genai, ours, batch, args.tokens, args.margin)
    except Phi4Error as error:
        parser.error(str(error))
    print(", ".join(f"{verdicts.count(kind)} {kind}" for kind in KINDS), f"(margin {args.margin:g})")
    return int("different" in verdicts)


if __name__ == "__main__":
    sys.exit(main())

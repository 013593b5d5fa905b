"""Generation with a real (tiny) network: every answer must equal a full forward pass at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from phi4.configs import AdapterConfig, Phi4Config, regime_for, route
from phi4.engine.drawing.sampler import draw, log_softmax, pack
from phi4.engine.generator import Generator
from phi4.engine.request import Request
from phi4.errors import InvalidRequest
from phi4.model import Phi4Model, build_model, load_adapter, make_batch
from phi4.processing.mel import audio_arrays
from phi4.processing.processor import Processor
from phi4.processing.tiles import tile_image
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_tokenizer
from phi4.torch_runner.runner import TorchRunner
from phi4.types import MediaSpan, ModelInputs, SamplingParams

USER = AdapterConfig("mine", 3, 6, target_modules=("self_attn.qkv_proj", "mlp.down_proj"))


def user_tensors(config: Phi4Config) -> dict[str, np.ndarray]:
    wide = replace(config, adapters=(USER,), vision=None, speech=None)
    return {name: values for name, values in tiny_tensors(wide) if ".lora_" in name}


def build(original_max: int) -> Phi4Model:
    config = tiny_config(original_max=original_max, max_positions=512)
    model = build_model(config, dict(tiny_tensors(config)).__getitem__, dtype=torch.float32)
    load_adapter(model, USER, user_tensors(config).__getitem__)
    return model


@pytest.fixture(scope="module")
def model() -> Phi4Model:
    return build(original_max=64)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def generator(
    model: Phi4Model, tokenizer: Phi4Tokenizer, policy: str = "reference", **limits: int
) -> Generator:
    processor = Processor(model.config, tokenizer)
    return Generator(TorchRunner(model, **limits), processor, tokenizer, rope_policy=policy)  # type: ignore[arg-type]


def row(
    config: Phi4Config, length: int, image: bool = False, audio_s: float = 0.0, seed: int = 0
) -> ModelInputs:
    """Random text with media after the first token; `length` counts text tokens only."""
    assert config.vision is not None and config.speech is not None
    images = (tile_image(ramp_picture(70 + seed, 50), config.vision),) if image else ()
    audios = (audio_arrays(chirp(audio_s), config.speech),) if audio_s else ()
    spans: list[MediaSpan] = []
    at = 1
    for kind, media in (("image", images), ("audio", audios)):
        for medium in media:
            spans.append(MediaSpan(kind, 0, at, medium.num_tokens))  # type: ignore[arg-type]
            at += medium.num_tokens + 1
    total = length + sum(span.length for span in spans)
    ids = np.random.default_rng(seed).integers(0, 256, total)
    return ModelInputs(ids, images, audios, tuple(spans))


@torch.no_grad()
def full_logits(model: Phi4Model, inputs: ModelInputs, adapters: tuple[str, ...], regime: str) -> np.ndarray:
    """`[T, V]` of one uncached forward pass."""
    hidden = model(make_batch([inputs], [regime], [adapters]))  # type: ignore[list-item]
    return model.logits(hidden)[0].numpy()


def by_recompute(
    model: Phi4Model,
    inputs: ModelInputs,
    sampling: SamplingParams,
    stop_ids: Sequence[int],
    adapters: tuple[str, ...] | None = None,
    policy: str = "reference",
) -> tuple[int, ...]:
    """The answer by running the whole sequence anew for each token."""
    if adapters is None:
        adapters = route(bool(inputs.images), bool(inputs.audios)).adapters
    packed, prompt = pack(sampling, 0), len(inputs.token_ids)
    tokens: list[int] = []
    while len(tokens) < sampling.max_new_tokens:
        whole = replace(inputs, token_ids=np.concatenate([inputs.token_ids, np.array(tokens, np.int64)]))
        length = prompt + sampling.max_new_tokens if policy == "pin" else len(whole.token_ids)
        regime = regime_for(model.config.decoder, length, policy)  # type: ignore[arg-type]
        logits = full_logits(model, whole, adapters, regime)
        tokens.append(draw(logits[-1], packed, len(whole.token_ids)))
        if tokens[-1] in stop_ids:
            break
    return tuple(tokens)


CASES = {
    "text": {},
    "image": {"image": True},
    "audio": {"audio_s": 0.9},
    "image and audio": {"image": True, "audio_s": 0.5},
}


@pytest.mark.parametrize("media", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_equals_uncached(
    model: Phi4Model, tokenizer: Phi4Tokenizer, media: dict[str, float], temperature: float
) -> None:
    inputs = row(model.config, 9, **media)  # type: ignore[arg-type]
    sampling = SamplingParams(temperature, seed=5, max_new_tokens=14)
    done = generator(model, tokenizer).generate([Request(inputs=inputs, sampling=sampling)])[0]
    assert done.token_ids == by_recompute(model, inputs, sampling, tokenizer.tokens.stop_ids)


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_chunks_that_split_media_change_nothing(
    model: Phi4Model, tokenizer: Phi4Tokenizer, chunk: int
) -> None:
    inputs = row(model.config, 7, image=True, audio_s=0.4)
    sampling = SamplingParams(1.0, seed=9, max_new_tokens=8)
    done = generator(model, tokenizer, max_step_tokens=chunk).generate(
        [Request(inputs=inputs, sampling=sampling)]
    )[0]
    assert done.token_ids == by_recompute(model, inputs, sampling, tokenizer.tokens.stop_ids)


@pytest.mark.parametrize("policy", ["reference", "pin", "short"])
def test_generation_across_the_boundary_equals_a_recompute_at_each_step(
    tokenizer: Phi4Tokenizer, policy: str
) -> None:
    model = build(original_max=16)
    inputs = row(model.config, 12)
    sampling = SamplingParams(1.0, seed=2, max_new_tokens=12)
    done = generator(model, tokenizer, policy).generate([Request(inputs=inputs, sampling=sampling)])[0]
    assert done.token_ids == by_recompute(model, inputs, sampling, tokenizer.tokens.stop_ids, policy=policy)
    assert len(done.token_ids) == 12
    assert done.timing.rope_crossings == (policy == "reference")


def test_the_released_boundary_of_4096_is_crossed_as_the_reference_does(tokenizer: Phi4Tokenizer) -> None:
    config = tiny_config(original_max=4096, max_positions=131072)
    model = build_model(config, dict(tiny_tensors(config)).__getitem__, dtype=torch.float32)
    sampling = SamplingParams(1.0, seed=1, max_new_tokens=4)
    rows = [row(config, length, seed=length % 7) for length in (4095, 4096, 4097)]
    answers = generator(model, tokenizer, max_step_tokens=1500).generate(
        [Request(inputs=inputs, sampling=sampling) for inputs in rows]
    )
    assert [(len(done.token_ids), done.timing.rope_crossings) for done in answers] == [(4, 1), (4, 1), (4, 0)]
    for inputs, done in zip(rows, answers, strict=True):
        assert done.token_ids == by_recompute(model, inputs, sampling, tokenizer.tokens.stop_ids)


def test_a_row_with_media_crosses_like_any_other(tokenizer: Phi4Tokenizer) -> None:
    model = build(original_max=64)
    inputs = row(model.config, 5, image=True, audio_s=0.9)
    config = replace(model.config.decoder, original_max_position_embeddings=len(inputs.token_ids) + 4)
    model = build_model(
        replace(model.config, decoder=config),
        dict(tiny_tensors(model.config)).__getitem__,
        dtype=torch.float32,
    )
    sampling = SamplingParams(max_new_tokens=9)
    done = generator(model, tokenizer).generate([Request(inputs=inputs, sampling=sampling)])[0]
    assert done.token_ids == by_recompute(model, inputs, sampling, tokenizer.tokens.stop_ids)
    assert done.timing.rope_crossings == 1


def test_rows_of_every_kind_in_one_batch_equal_the_rows_alone(
    model: Phi4Model, tokenizer: Phi4Tokenizer
) -> None:
    kinds = [
        ({}, 5, None),
        ({"image": True}, 8, None),
        ({"audio_s": 0.9}, 3, None),
        ({"image": True, "audio_s": 0.3}, 4, None),
        ({}, 40, ("mine",)),
        ({"image": True}, 6, ("vision", "mine")),
        ({"audio_s": 1.5}, 20, ()),
        ({}, 60, None),  # crosses 64 while the others decode
    ]
    requests = [
        Request(
            inputs=row(model.config, length, seed=n, **media),  # type: ignore[arg-type]
            sampling=SamplingParams(n % 2 * 1.0, seed=n, max_new_tokens=6 + n),
            adapters=adapters,
        )
        for n, (media, length, adapters) in enumerate(kinds)
    ]
    runner_limits = {"max_rows": 5, "max_step_tokens": 70}  # some wait, prompts come in chunks
    together = generator(model, tokenizer, **runner_limits)
    answers = together.generate(requests)
    for request, done in zip(requests, answers, strict=True):
        assert request.inputs is not None
        expected = by_recompute(
            model, request.inputs, request.sampling, tokenizer.tokens.stop_ids, request.adapters
        )
        assert done.token_ids == expected
    assert answers[-1].timing.rope_crossings == 1
    runner = together.runner
    assert isinstance(runner, TorchRunner) and (runner.num_open, runner.num_handles) == (0, 0)


def test_adapters_of_a_row_change_its_answer_and_order_of_the_tuple_does_not(
    model: Phi4Model, tokenizer: Phi4Tokenizer
) -> None:
    inputs = row(model.config, 30)
    names = [(), ("vision",), ("speech",), ("mine",), ("vision", "mine"), ("mine", "vision")]
    requests = [Request(inputs=inputs, sampling=SamplingParams(max_new_tokens=8), adapters=n) for n in names]
    answers = [done.token_ids for done in generator(model, tokenizer).generate(requests)]
    assert len(set(answers)) == 5
    assert answers[4] == answers[5]


def test_an_unknown_adapter_is_refused_by_name(model: Phi4Model, tokenizer: Phi4Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="'style'"):
        generator(model, tokenizer).generate(
            [
                Request(
                    inputs=row(model.config, 4),
                    sampling=SamplingParams(max_new_tokens=2),
                    adapters=("style",),
                )
            ]
        )


def test_streaming_equals_non_streaming(model: Phi4Model, tokenizer: Phi4Tokenizer) -> None:
    request = Request(
        inputs=row(model.config, 9, image=True), sampling=SamplingParams(1.0, seed=11, max_new_tokens=30)
    )
    whole = generator(model, tokenizer).generate([request])[0]
    pieces = list(generator(model, tokenizer).stream(request))
    assert pieces[-1].completion is not None
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].completion.token_ids == whole.token_ids
    assert len(pieces) > 5


@pytest.mark.parametrize("chunk", [4, 512])
def test_score_equals_a_full_forward(model: Phi4Model, tokenizer: Phi4Tokenizer, chunk: int) -> None:
    pairs = [
        (Request(inputs=row(model.config, 9, image=True)), "the red house"),
        (Request(inputs=row(model.config, 50)), "the blue house stands by the river and it says open"),
        (Request(inputs=row(model.config, 3, audio_s=0.5)), "x"),
    ]
    scores = generator(model, tokenizer, max_step_tokens=chunk).score_batch(pairs)
    for (request, target), scored in zip(pairs, scores, strict=True):
        inputs = request.inputs
        assert inputs is not None
        ids = np.array(tokenizer.encode_text(target))
        assert scored.token_ids == tuple(ids)
        whole = replace(inputs, token_ids=np.concatenate([inputs.token_ids, ids]))
        regime = regime_for(model.config.decoder, len(whole.token_ids), "reference")
        adapters = route(bool(inputs.images), bool(inputs.audios)).adapters
        logprobs = log_softmax(full_logits(model, whole, adapters, regime))
        first = len(inputs.token_ids)
        expected = [logprobs[first + i - 1, token] for i, token in enumerate(ids)]
        np.testing.assert_allclose(scored.logprobs, expected, atol=2e-5)
        assert scored.total == pytest.approx(float(np.sum(expected)), abs=1e-4)


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 2e-5), ("bfloat16", 0.03), ("float16", 0.02)])
def test_rows_of_different_pools_and_adapters_score_as_alone_in_every_arithmetic(
    tokenizer: Phi4Tokenizer, dtype: str, limit: float
) -> None:
    config = tiny_config(max_positions=1024)
    kind = getattr(torch, dtype)
    model = build_model(config, dict(tiny_tensors(config)).__getitem__, dtype=kind)
    adapters = [(), ("vision",), ("speech",), ("vision", "speech")]
    rows = [row(config, length, seed=length) for length in (40, 100, 600, 7)]  # three capacities
    target = "the red house stands on the hill"
    pairs = [(Request(inputs=r, adapters=names), target) for r, names in zip(rows, adapters, strict=True)]
    scores = generator(model, tokenizer, max_step_tokens=150).score_batch(pairs)
    ids = np.array(tokenizer.encode_text(target))
    for inputs, names, scored in zip(rows, adapters, scores, strict=True):
        whole = replace(inputs, token_ids=np.concatenate([inputs.token_ids, ids]))
        with torch.no_grad():
            hidden = model(make_batch([whole], ["short"], [names]))
        assert hidden.dtype == kind
        logprobs = torch.log_softmax(model.logits(hidden)[0].float(), dim=-1).detach().numpy()
        expected = [logprobs[len(inputs.token_ids) + i - 1, token] for i, token in enumerate(ids)]
        np.testing.assert_allclose(scored.logprobs, expected, atol=limit)


def test_a_model_in_training_answers_without_dropout_and_goes_on_training(tokenizer: Phi4Tokenizer) -> None:
    model = build(original_max=64)
    model.router.dropouts["speech"] = 0.9
    inputs = row(model.config, 6, audio_s=0.5)
    request = Request(inputs=inputs, sampling=SamplingParams(max_new_tokens=10))
    expected = generator(model, tokenizer).generate([request])[0].token_ids
    model.train()
    assert model.vision is not None
    model.vision.eval()  # a frozen part
    assert generator(model, tokenizer).generate([request])[0].token_ids == expected
    assert model.training and model.decoder.training and not model.vision.training
    loss = model.logits(model(make_batch([inputs], ["short"]))).sum()
    loss.backward()  # nothing of the rollout stands in the way of gradients
    assert model.decoder.norm.weight.grad is not None

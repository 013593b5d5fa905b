"""The laws of `ModelRunner`, held against the torch runner and the scripted fake alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from phi4.engine.runner import (
    Bias,
    Draw,
    MediaPiece,
    Nothing,
    PackedSampling,
    Piece,
    Row,
    RowResult,
    Scale,
    Score,
    SequenceSpec,
    Slot,
    StepPlan,
    TextPiece,
)
from phi4.errors import ContextOverflow, InvalidRequest
from phi4.model import build_model
from phi4.processing.mel import audio_arrays
from phi4.testing.media import chirp
from phi4.testing.scripted import ScriptedRunner, babbling
from phi4.testing.tiny import tiny_config, tiny_tensors
from phi4.torch_runner.runner import TorchRunner

CONFIG = tiny_config(max_positions=512)
SAMPLED = Draw(PackedSampling(1.0, 0, 0.95, 17), num_top=3)
IDS = np.random.default_rng(3).integers(0, 256, 24)


def torch_runner() -> TorchRunner:
    return TorchRunner(build_model(CONFIG, dict(tiny_tensors(CONFIG)).__getitem__, dtype=torch.float32))


Runner = TorchRunner | ScriptedRunner


def scripted_runner() -> ScriptedRunner:
    return ScriptedRunner(babbling(320), 320, max_context_tokens=512)


@pytest.fixture(scope="module", params=[torch_runner, scripted_runner], ids=["torch", "scripted"])
def runner(request: pytest.FixtureRequest) -> Runner:
    make: Callable[[], Runner] = request.param
    return make()


def start(runner: Runner, adapters: tuple[str, ...] = (), regime: str = "short") -> Slot:
    return runner.open(SequenceSpec(adapters, regime, 100))  # type: ignore[arg-type]


def feed(
    runner: Runner, slot: Slot, *pieces: Piece | list[int], want: object = SAMPLED, drafts=()
) -> RowResult:
    made = tuple(TextPiece(np.array(p)) if isinstance(p, list) else p for p in pieces)
    return runner.step(StepPlan((Row(slot, made, want, drafts),))).rows[0]  # type: ignore[arg-type]


def same(left: RowResult, right: RowResult) -> None:
    np.testing.assert_array_equal(left.token_ids, right.token_ids)
    np.testing.assert_array_equal(left.top_ids, right.top_ids)
    np.testing.assert_allclose(left.top_logprobs, right.top_logprobs, atol=2e-5)
    np.testing.assert_allclose(left.logprobs, right.logprobs, atol=2e-5)


def test_chunks_give_what_the_whole_gives(runner: Runner) -> None:
    whole, parts = start(runner), start(runner)
    expected = feed(runner, whole, TextPiece(IDS))
    assert len(feed(runner, parts, TextPiece(IDS[:5]), want=Nothing()).token_ids) == 0
    feed(runner, parts, TextPiece(IDS[5:6]), TextPiece(IDS[6:20]), want=Nothing())
    same(feed(runner, parts, TextPiece(IDS[20:])), expected)
    assert runner.length(parts) == runner.length(whole) == len(IDS)


def test_a_row_in_company_computes_what_it_computes_alone(runner: Runner) -> None:
    specs = [((), "short"), (("vision",), "short"), (("speech",), "long"), (("vision", "speech"), "short")]
    alone = [feed(runner, start(runner, *spec), TextPiece(IDS[: 4 + 5 * n])) for n, spec in enumerate(specs)]
    rows = [
        Row(start(runner, *spec), (TextPiece(IDS[: 4 + 5 * n]),), SAMPLED) for n, spec in enumerate(specs)
    ]
    together = runner.step(StepPlan(tuple(rows))).rows
    for left, right in zip(together, alone, strict=True):
        same(left, right)
    assert len({tuple(result.top_logprobs[0]) for result in alone}) == len(specs)


def test_prefill_and_decode_share_a_step(runner: Runner) -> None:
    old, alone = start(runner), start(runner)
    feed(runner, old, TextPiece(IDS[:9]), want=Nothing())
    expected_old = feed(runner, alone, TextPiece(IDS[:10]))
    expected_new = feed(runner, start(runner), TextPiece(IDS))
    rows = (
        Row(start(runner), (TextPiece(IDS),), SAMPLED),
        Row(old, (TextPiece(IDS[9:10]),), SAMPLED),
    )
    new_result, old_result = runner.step(StepPlan(rows)).rows
    same(old_result, expected_old)
    same(new_result, expected_new)


def test_media_may_be_cut_anywhere(runner: Runner) -> None:
    assert CONFIG.speech is not None
    handle = runner.encode(audio_arrays(chirp(0.8), CONFIG.speech))
    count = handle.num_tokens
    whole = MediaPiece(handle, 0, count)
    expected = feed(runner, start(runner, ("speech",)), [1, 2], whole, [3])
    slot = start(runner, ("speech",))
    feed(runner, slot, [1, 2], MediaPiece(handle, 0, 4), want=Nothing())
    feed(runner, slot, MediaPiece(handle, 4, 1), want=Nothing())
    same(feed(runner, slot, MediaPiece(handle, 5, count - 5), [3]), expected)
    other = feed(runner, start(runner, ("speech",)), [1, 2], MediaPiece(handle, 0, count - 1), [3])
    assert not np.allclose(other.top_logprobs, expected.top_logprobs, atol=1e-4)
    runner.release(handle)


def test_truncated_positions_are_forgotten(runner: Runner) -> None:
    slot = start(runner)
    expected = feed(runner, slot, TextPiece(IDS[:7]))
    feed(runner, slot, [200, 201, 202], want=Nothing())
    runner.truncate(slot, 5)
    same(feed(runner, slot, TextPiece(IDS[5:7])), expected)


def test_a_copied_prefix_goes_on_like_the_original_and_leaves_it_alone(runner: Runner) -> None:
    source, target = start(runner), start(runner)
    feed(runner, source, TextPiece(IDS[:12]), want=Nothing())
    runner.copy_prefix(source, target, 10)
    assert runner.length(target) == 10
    feed(runner, target, [9, 9, 9], want=Nothing())
    same(feed(runner, source, TextPiece(IDS[12:])), feed(runner, start(runner), TextPiece(IDS)))
    expected = feed(runner, start(runner), TextPiece(IDS[:10]), [9, 9, 9, 4])
    same(feed(runner, target, [4]), expected)


def answer_of(runner: Runner, count: int) -> list[int]:
    slot = start(runner)
    tokens = [int(feed(runner, slot, TextPiece(IDS)).token_ids[0])]
    while len(tokens) < count:
        tokens.append(int(feed(runner, slot, [tokens[-1]]).token_ids[0]))
    return tokens


@pytest.mark.parametrize("good", [0, 1, 3])
def test_right_drafts_are_kept_and_wrong_ones_forgotten(runner: Runner, good: int) -> None:
    truth = answer_of(runner, 6)
    drafts = (*truth[:good], *((truth[good] + 1) % 256 for _ in range(3 - good)))
    slot = start(runner)
    drafted = feed(runner, slot, TextPiece(IDS), drafts=drafts)
    assert drafted.token_ids.tolist() == truth[: good + 1]
    assert drafted.top_ids.shape == (good + 1, 3)
    assert runner.length(slot) == len(IDS) + good
    assert feed(runner, slot, [truth[good]]).token_ids.tolist() == [truth[good + 1]]


def test_only_allowed_tokens_are_drawn_and_log_probabilities_stay_the_models_own(runner: Runner) -> None:
    free = feed(runner, start(runner), TextPiece(IDS), want=Draw(num_top=320))
    third = int(free.top_ids[0, 2])
    allowed = np.zeros(320, np.bool_)
    allowed[[third, int(free.top_ids[0, 7])]] = True
    masked = feed(runner, start(runner), TextPiece(IDS), want=Draw(num_top=2, allowed=allowed))
    assert masked.token_ids.tolist() == [third]
    assert masked.logprobs[0] == pytest.approx(free.top_logprobs[0, 2], abs=2e-5)
    assert masked.top_ids.tolist() == [free.top_ids[0, :2].tolist()]
    assert np.exp(free.top_logprobs.astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-4)


def test_a_bias_and_a_scale_change_the_draw_and_no_log_probability(runner: Runner) -> None:
    free = feed(runner, start(runner), TextPiece(IDS), want=Draw(num_top=320))
    best, other = int(free.top_ids[0, 0]), int(free.top_ids[0, 5])
    lift = Bias(np.array([other]), np.array([30.0], np.float32))
    lower = Scale(np.array([best]), np.array([1.9], np.float32))
    for edits in ({"bias": lift}, {"bias": lift, "scale": lower}):
        want = Draw(num_top=2, **edits)  # type: ignore[arg-type]
        drawn = feed(runner, start(runner), TextPiece(IDS), want=want)
        assert drawn.token_ids.tolist() == [other]
        assert drawn.logprobs[0] == pytest.approx(free.top_logprobs[0, 5], abs=2e-5)
        assert drawn.top_ids.tolist() == [free.top_ids[0, :2].tolist()]


def test_a_bias_holds_after_every_draft(runner: Runner) -> None:
    lift = Draw(bias=Bias(np.array([9]), np.array([50.0], np.float32)))
    slot = start(runner)
    assert feed(runner, slot, TextPiece(IDS), want=lift, drafts=(9, 9, 4)).token_ids.tolist() == [9, 9, 9]
    assert runner.length(slot) == len(IDS) + 2


def test_without_candidates_the_same_tokens_come_and_no_log_probability(runner: Runner) -> None:
    judged = feed(runner, start(runner), TextPiece(IDS), want=Draw(num_top=0))
    plain = feed(runner, start(runner), TextPiece(IDS), want=Draw(num_top=None))
    assert plain.token_ids.tolist() == judged.token_ids.tolist()
    assert (len(judged.logprobs), len(plain.logprobs)) == (1, 0)


def test_scores_follow_the_last_positions_fed(runner: Runner) -> None:
    slot = start(runner)
    targets = np.array([5, 60, 7, 9])
    scored = feed(runner, slot, TextPiece(IDS), want=Score(targets))
    assert len(scored.token_ids) == 0
    for i, target in enumerate(targets):
        prefix = IDS[: len(IDS) - len(targets) + i + 1]
        best = feed(runner, start(runner), TextPiece(prefix), want=Draw(num_top=320))
        at = best.top_ids[0].tolist().index(target)
        assert scored.logprobs[i] == pytest.approx(best.top_logprobs[0, at], abs=2e-5)
        assert scored.is_best[i] == (at == 0)
    greedy = feed(runner, start(runner), TextPiece(IDS), want=Draw()).token_ids
    assert feed(runner, start(runner), TextPiece(IDS), want=Score(greedy)).is_best.tolist() == [True]


def test_more_than_the_context_cannot_be_reserved(runner: Runner) -> None:
    with pytest.raises(ContextOverflow, match="512"):
        runner.open(SequenceSpec((), "short", 513))


def test_names_of_closed_slots_are_never_used_again(runner: Runner) -> None:
    first = start(runner)
    runner.close(first)
    assert start(runner) != first


@pytest.mark.parametrize("more", [-1, 1])
def test_arrays_that_state_a_wrong_number_of_tokens_are_refused_and_not_kept(more: int) -> None:
    assert CONFIG.speech is not None
    runner, voice = torch_runner(), audio_arrays(chirp(0.8), CONFIG.speech)
    stated = voice.num_tokens + more
    says = f"state {stated} tokens.*speech encoder makes {voice.num_tokens}"
    with pytest.raises(InvalidRequest, match=says):
        runner.encode(replace(voice, num_tokens=stated))
    assert runner.num_handles == 0
    assert runner.encode(voice).num_tokens == voice.num_tokens

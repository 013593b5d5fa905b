"""The laws of `ModelRunner`, held against the runner of ONNX packages.

What its graphs cannot mix is fed as the scheduler does it: prompts alone, then answers together.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.checkpoint import LoadedAdapter
from phi4.configs import AdapterConfig, Phi4Config
from phi4.engine.drawing.sampler import draw
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
from phi4.errors import ContextOverflow, InvalidRequest, OutOfMemory
from phi4.onnx import OnnxPackage, open_package
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.shapes import FloatArray
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import tiny_tensors

ONE = SessionChoice(threads=1)
SAMPLED = Draw(PackedSampling(1.0, 0, 0.95, 17), num_top=3)
EVERYTHING = Draw(num_top=320)
IDS = np.random.default_rng(3).integers(0, 256, 48)
KINDS = [((), "short"), (("vision",), "short"), (("speech",), "long"), (("vision", "speech"), "short")]
USER = AdapterConfig("mine", 3, 6, target_modules=("self_attn.qkv_proj", "mlp.down_proj"))


def user_adapter(config: Phi4Config, name: str = "mine") -> LoadedAdapter:
    adapter = replace(USER, name=name)
    alone = replace(config, adapters=(adapter,), vision=None, speech=None)
    return LoadedAdapter(adapter, {n: values for n, values in tiny_tensors(alone) if ".lora_" in n})


@pytest.fixture(scope="module")
def runner(tiny_package: OnnxPackage, tiny: Phi4Config) -> OrtRunner:
    return OrtRunner(tiny_package, ONE, adapter=user_adapter(tiny))


@pytest.fixture
def fresh(tiny_package: OnnxPackage) -> OrtRunner:
    """One without open sequences, so that lanes are known."""
    return OrtRunner(tiny_package, ONE)


def start(runner: OrtRunner, adapters: tuple[str, ...] = (), regime: str = "short", room: int = 100) -> Slot:
    return runner.open(SequenceSpec(adapters, regime, room))  # type: ignore[arg-type]


def row(slot: Slot, *pieces: Piece | list[int], want: Any = SAMPLED, drafts: tuple[int, ...] = ()) -> Row:
    return Row(
        slot, tuple(TextPiece(np.array(p)) if isinstance(p, list) else p for p in pieces), want, drafts
    )


def feed(runner: OrtRunner, slot: Slot, *pieces: Piece | list[int], **more: Any) -> RowResult:
    return runner.step(StepPlan((row(slot, *pieces, **more),))).rows[0]


def together(runner: OrtRunner, slots: list[Slot], ids: list[int], **more: Any) -> list[RowResult]:
    rows = [row(slot, [token], **more) for slot, token in zip(slots, ids, strict=True)]
    return list(runner.step(StepPlan(tuple(rows))).rows)


def same(left: RowResult, right: RowResult) -> None:
    np.testing.assert_array_equal(left.token_ids, right.token_ids)
    np.testing.assert_array_equal(left.top_ids, right.top_ids)
    np.testing.assert_allclose(left.top_logprobs, right.top_logprobs, atol=2e-5)
    np.testing.assert_allclose(left.logprobs, right.logprobs, atol=2e-5)


def logits(runner: OrtRunner, *pieces: Piece | list[int], **kind: Any) -> FloatArray:
    """Log-probabilities of all tokens after a prompt, which are logits up to a constant."""
    slot = start(runner, **kind)
    result = feed(runner, slot, *pieces, want=EVERYTHING)
    runner.close(slot)
    return result.top_logprobs[0][np.argsort(result.top_ids[0])]


@pytest.mark.parametrize(("adapters", "regime"), KINDS)
def test_chunks_give_what_the_whole_gives(runner: OrtRunner, adapters: tuple[str, ...], regime: str) -> None:
    whole, parts = (start(runner, adapters, regime) for _ in range(2))
    expected = feed(runner, whole, TextPiece(IDS))
    assert len(feed(runner, parts, TextPiece(IDS[:5]), want=Nothing()).token_ids) == 0
    feed(runner, parts, TextPiece(IDS[5:6]), TextPiece(IDS[6:40]), want=Nothing())
    same(feed(runner, parts, TextPiece(IDS[40:])), expected)
    assert runner.length(parts) == runner.length(whole) == len(IDS)


@pytest.mark.parametrize("adapters", [(), ("vision",), ("speech", "mine")])
def test_rows_that_decode_together_compute_what_each_computes_alone(
    runner: OrtRunner, adapters: tuple[str, ...]
) -> None:
    lengths, regimes = (4, 9, 30, 2, 17), ("short", "long", "long", "short", "short")
    alone, slots = [], []
    for length, regime in zip(lengths, regimes, strict=True):
        alone.append(feed(runner, start(runner, adapters, regime), TextPiece(IDS[: length + 1])))
        slots.append(start(runner, adapters, regime))
        feed(runner, slots[-1], TextPiece(IDS[:length]), want=Nothing())
    ids = [int(IDS[length]) for length in lengths]
    for left, right in zip(together(runner, slots, ids), alone, strict=True):
        same(left, right)
    assert [runner.length(slot) for slot in slots] == [length + 1 for length in lengths]


def test_adapters_and_regimes_all_tell(runner: OrtRunner) -> None:
    kinds = [*KINDS, ((), "long"), (("mine",), "short"), (("vision", "mine"), "short")]
    seen = [logits(runner, TextPiece(IDS), adapters=a, regime=r) for a, r in kinds]
    for i, left in enumerate(seen):
        assert all(np.abs(left - right).max() > 1e-2 for right in seen[:i])


def test_idle_lanes_between_the_rows_keep_what_they_hold(fresh: OrtRunner) -> None:
    expected = feed(fresh, start(fresh, regime="long"), TextPiece(IDS[:12]))
    slots = [start(fresh, regime="long") for _ in range(5)]
    for slot in slots:
        feed(fresh, slot, TextPiece(IDS[:11]), want=Nothing())
    fresh.close(slots[2])
    token = int(IDS[11])
    first, last = together(fresh, [slots[0], slots[4]], [token, token])  # two sequences and a free lane idle
    same(first, expected)
    same(last, expected)
    for slot in (slots[1], slots[3]):
        assert fresh.length(slot) == 11
        same(feed(fresh, slot, [token]), expected)


def test_rows_of_different_pools_share_a_step(fresh: OrtRunner) -> None:
    slots = [start(fresh, room=room) for room in (20, 500, 60, 300)]
    for slot in slots:
        feed(fresh, slot, TextPiece(IDS[:7]), want=Nothing())
    expected = feed(fresh, start(fresh), TextPiece(IDS[:8]))
    for result in together(fresh, slots, [int(IDS[7])] * 4):
        same(result, expected)


def test_sequences_survive_the_growth_of_their_pool_and_of_the_tables(
    tiny_package: OnnxPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi4.onnx.serving.tables.FIRST_CAPACITY", 16)
    runner = OrtRunner(tiny_package, ONE)
    old = start(runner, regime="long")
    feed(runner, old, TextPiece(IDS[:10]), want=Nothing())
    others = [start(runner) for _ in range(5)]
    long = start(runner, room=512)
    feed(runner, long, TextPiece(np.tile(IDS, 10)), want=Nothing())
    same(feed(runner, old, TextPiece(IDS[10:])), feed(runner, start(runner, regime="long"), TextPiece(IDS)))
    assert runner.num_open == len(others) + 3


def test_rows_want_different_things_of_one_step(fresh: OrtRunner) -> None:
    slots = [start(fresh) for _ in range(3)]
    for slot in slots:
        feed(fresh, slot, TextPiece(IDS[:6]), want=Nothing())
    token = int(IDS[6])
    wants = (Nothing(), Score(np.array([5])), SAMPLED)
    rows = tuple(row(slot, [token], want=want) for slot, want in zip(slots, wants, strict=True))
    silent, scored, drawn = fresh.step(StepPlan(rows)).rows
    everything = feed(fresh, start(fresh), TextPiece(IDS[:7]), want=EVERYTHING)
    assert (len(silent.token_ids), len(silent.logprobs)) == (0, 0)
    assert scored.logprobs[0] == pytest.approx(
        everything.top_logprobs[0][everything.top_ids[0].tolist().index(5)], abs=2e-5
    )
    same(drawn, feed(fresh, start(fresh), TextPiece(IDS[:7])))


def test_media_may_be_cut_anywhere(runner: OrtRunner, tiny: Phi4Config) -> None:
    assert tiny.speech is not None
    handle = runner.encode(audio_arrays(chirp(0.8), tiny.speech))
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


def test_a_position_of_a_medium_may_decode_beside_a_token(fresh: OrtRunner, tiny: Phi4Config) -> None:
    assert tiny.vision is not None
    handle = fresh.encode(tile_image(ramp_picture(60, 50), tiny.vision))
    expected = feed(fresh, start(fresh), [1], MediaPiece(handle, 0, 3))
    slots = [start(fresh), start(fresh)]
    feed(fresh, slots[0], [1], MediaPiece(handle, 0, 2), want=Nothing())
    feed(fresh, slots[1], [1, 2, 3], want=Nothing())
    rows = (row(slots[0], MediaPiece(handle, 2, 1)), row(slots[1], [4]))
    same(fresh.step(StepPlan(rows)).rows[0], expected)


def test_pictures_and_both_projectors_of_recordings_all_tell(runner: OrtRunner, tiny: Phi4Config) -> None:
    assert tiny.vision is not None and tiny.speech is not None
    voice = audio_arrays(chirp(0.8), tiny.speech)
    handles = [
        runner.encode(tile_image(ramp_picture(60, 50), tiny.vision)),
        runner.encode(voice, "speech"),
        runner.encode(voice, "vision"),
    ]
    seen = [logits(runner, MediaPiece(h, 0, h.num_tokens), [3], adapters=("vision",)) for h in handles]
    assert np.abs(seen[0] - seen[1]).max() > 1e-2
    assert np.abs(seen[1] - seen[2]).max() > 1e-2
    for handle in handles:
        runner.release(handle)


def test_released_outputs_are_gone_and_their_names_are_never_used_again(
    fresh: OrtRunner, tiny: Phi4Config
) -> None:
    assert tiny.speech is not None
    voice = audio_arrays(chirp(0.8), tiny.speech)
    first = fresh.encode(voice)
    assert fresh.num_handles == 1
    fresh.release(first)
    assert fresh.num_handles == 0
    assert fresh.encode(voice).id != first.id
    with pytest.raises(KeyError):
        feed(fresh, start(fresh), MediaPiece(first, 0, 1))


def test_truncated_positions_are_forgotten(runner: OrtRunner) -> None:
    slot = start(runner)
    expected = feed(runner, slot, TextPiece(IDS[:7]))
    feed(runner, slot, [200, 201, 202], want=Nothing())
    runner.truncate(slot, 5)
    same(feed(runner, slot, TextPiece(IDS[5:7])), expected)


def test_a_copied_prefix_goes_on_like_the_original_and_leaves_it_alone(runner: OrtRunner) -> None:
    source, target = start(runner), start(runner, room=300)
    feed(runner, source, TextPiece(IDS[:12]), want=Nothing())
    runner.copy_prefix(source, target, 10)
    assert runner.length(target) == 10
    feed(runner, target, [9, 9, 9], want=Nothing())
    same(feed(runner, source, TextPiece(IDS[12:])), feed(runner, start(runner), TextPiece(IDS)))
    expected = feed(runner, start(runner), TextPiece(IDS[:10]), [9, 9, 9, 4])
    same(feed(runner, target, [4]), expected)


def answer_of(runner: OrtRunner, count: int) -> list[int]:
    slot = start(runner)
    tokens = [int(feed(runner, slot, TextPiece(IDS)).token_ids[0])]
    while len(tokens) < count:
        tokens.append(int(feed(runner, slot, [tokens[-1]]).token_ids[0]))
    return tokens


@pytest.mark.parametrize("good", [0, 1, 3])
def test_right_drafts_are_kept_and_wrong_ones_forgotten(runner: OrtRunner, good: int) -> None:
    truth = answer_of(runner, 6)
    drafts = (*truth[:good], *((truth[good] + 1) % 256 for _ in range(3 - good)))
    slot = start(runner)
    drafted = feed(runner, slot, TextPiece(IDS), drafts=drafts)
    assert drafted.token_ids.tolist() == truth[: good + 1]
    assert drafted.top_ids.shape == (good + 1, 3)
    assert runner.length(slot) == len(IDS) + good
    assert feed(runner, slot, [truth[good]]).token_ids.tolist() == [truth[good + 1]]


@pytest.mark.parametrize(
    "sampling", [PackedSampling(), PackedSampling(0.7, 40, 0.9, 3), PackedSampling(1.5, 0, 1.0, 2**63)]
)
def test_draws_are_those_of_the_reference_on_the_runners_own_logits(
    runner: OrtRunner, sampling: PackedSampling
) -> None:
    slot = start(runner)
    ids = IDS.tolist()
    for _ in range(8):
        drawn = int(feed(runner, slot, ids[runner.length(slot) :], want=Draw(sampling)).token_ids[0])
        assert drawn == draw(logits(runner, ids), sampling, len(ids))
        ids.append(drawn)


def test_only_allowed_tokens_are_drawn_and_log_probabilities_stay_the_models_own(runner: OrtRunner) -> None:
    free = feed(runner, start(runner), TextPiece(IDS), want=EVERYTHING)
    third = int(free.top_ids[0, 2])
    allowed = np.zeros(320, np.bool_)
    allowed[[third, int(free.top_ids[0, 7])]] = True
    masked = feed(runner, start(runner), TextPiece(IDS), want=Draw(num_top=2, allowed=allowed))
    assert masked.token_ids.tolist() == [third]
    assert masked.logprobs[0] == pytest.approx(free.top_logprobs[0, 2], abs=2e-5)
    assert masked.top_ids.tolist() == [free.top_ids[0, :2].tolist()]
    assert np.exp(free.top_logprobs.astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-4)


def test_a_bias_and_a_scale_change_the_draw_and_no_log_probability(runner: OrtRunner) -> None:
    free = feed(runner, start(runner), TextPiece(IDS), want=EVERYTHING)
    best, other = int(free.top_ids[0, 0]), int(free.top_ids[0, 5])
    lift = Bias(np.array([other]), np.array([30.0], np.float32))
    lower = Scale(np.array([best]), np.array([1.9], np.float32))
    for edits in ({"bias": lift}, {"bias": lift, "scale": lower}):
        want = Draw(num_top=2, **edits)  # type: ignore[arg-type]
        drawn = feed(runner, start(runner), TextPiece(IDS), want=want)
        assert drawn.token_ids.tolist() == [other]
        assert drawn.logprobs[0] == pytest.approx(free.top_logprobs[0, 5], abs=2e-5)
        assert drawn.top_ids.tolist() == [free.top_ids[0, :2].tolist()]


def test_without_candidates_the_same_tokens_come_and_no_log_probability(runner: OrtRunner) -> None:
    judged = feed(runner, start(runner), TextPiece(IDS), want=Draw(num_top=0), drafts=(9, 4))
    plain = feed(runner, start(runner), TextPiece(IDS), want=Draw(num_top=None), drafts=(9, 4))
    assert plain.token_ids.tolist() == judged.token_ids.tolist()
    assert (len(judged.logprobs), len(plain.logprobs)) == (len(judged.token_ids), 0)


def test_a_bias_holds_after_every_draft(runner: OrtRunner) -> None:
    lift = Draw(bias=Bias(np.array([9]), np.array([50.0], np.float32)))
    slot = start(runner)
    assert feed(runner, slot, TextPiece(IDS), want=lift, drafts=(9, 9, 4)).token_ids.tolist() == [9, 9, 9]
    assert runner.length(slot) == len(IDS) + 2


def test_scores_follow_the_last_positions_fed(runner: OrtRunner) -> None:
    targets = np.array([5, 60, 7, 9])
    scored = feed(runner, start(runner), TextPiece(IDS), want=Score(targets))
    assert len(scored.token_ids) == 0
    for i, target in enumerate(targets):
        best = feed(runner, start(runner), TextPiece(IDS[: len(IDS) - 3 + i]), want=EVERYTHING)
        at = best.top_ids[0].tolist().index(target)
        assert scored.logprobs[i] == pytest.approx(best.top_logprobs[0, at], abs=2e-5)
        assert scored.is_best[i] == (at == 0)
    greedy = feed(runner, start(runner), TextPiece(IDS), want=Draw()).token_ids
    assert feed(runner, start(runner), TextPiece(IDS), want=Score(greedy)).is_best.tolist() == [True]


def test_more_targets_than_logit_rows_alive_at_once_are_judged_alike(fresh: OrtRunner) -> None:
    ids, targets = np.tile(IDS, 4), np.tile(IDS[::-1], 3)[:130]
    whole = feed(fresh, start(fresh, room=300), TextPiece(ids), want=Score(targets))
    slot = start(fresh, room=300)
    feed(fresh, slot, TextPiece(ids[:-130]), want=Nothing())
    parts = [
        feed(fresh, slot, TextPiece(ids[-130:][at : at + 10]), want=Score(targets[at : at + 10]))
        for at in range(0, 130, 10)
    ]
    np.testing.assert_allclose(whole.logprobs, np.concatenate([p.logprobs for p in parts]), atol=2e-5)


def test_abilities_are_stated_as_they_are(runner: OrtRunner, tiny: Phi4Config) -> None:
    info = runner.info
    assert (info.mixes_adapters, info.mixes_prefill_decode, info.verifies_drafts_in_batch) == (False,) * 3
    assert (info.name, info.device, info.dtype) == ("onnx", "cpu", "fp32")
    assert info.modalities == tiny.modalities
    assert info.adapters == ("vision", "speech", "mine")
    assert info.bytes_per_token == 2 * tiny.decoder.num_hidden_layers * tiny.decoder.kv_dim * 4


def test_more_than_the_context_cannot_be_reserved(runner: OrtRunner) -> None:
    with pytest.raises(ContextOverflow, match="512"):
        start(runner, room=513)


def test_unknown_adapter_is_refused_with_those_that_are_there(runner: OrtRunner) -> None:
    with pytest.raises(InvalidRequest, match=r"'other'.*'vision', 'speech', 'mine'"):
        start(runner, ("vision", "other"))


def test_sequences_beyond_the_limit_are_refused_and_others_go_on(tiny_package: OnnxPackage) -> None:
    limit = 256 * OrtRunner(tiny_package, ONE).info.bytes_per_token
    runner = OrtRunner(tiny_package, ONE, max_cache_bytes=limit)
    slot = start(runner)
    with pytest.raises(OutOfMemory, match="shorten"):
        start(runner)
    feed(runner, slot, TextPiece(IDS))
    runner.close(slot)
    start(runner)


def test_names_of_closed_slots_are_never_used_again(runner: OrtRunner) -> None:
    first = start(runner)
    runner.close(first)
    assert start(runner) != first


@pytest.mark.parametrize("more", [-1, 1])
def test_arrays_that_state_a_wrong_number_of_tokens_are_refused_and_not_kept(
    fresh: OrtRunner, tiny: Phi4Config, more: int
) -> None:
    assert tiny.speech is not None
    voice = audio_arrays(chirp(0.8), tiny.speech)
    says = f"state {voice.num_tokens + more} tokens.*speech encoder makes {voice.num_tokens}"
    with pytest.raises(InvalidRequest, match=says):
        fresh.encode(replace(voice, num_tokens=voice.num_tokens + more))
    assert fresh.num_handles == 0
    assert fresh.encode(voice).num_tokens == voice.num_tokens


def test_media_of_a_part_that_was_not_opened_are_refused(tiny_folder: Path, tiny: Phi4Config) -> None:
    assert tiny.vision is not None
    runner = OrtRunner(open_package(tiny_folder, ("text", "speech")), ONE)
    assert runner.info.modalities == ("text", "speech")
    with pytest.raises(InvalidRequest, match=r"needs the vision encoder.*opened for text, speech only"):
        runner.encode(tile_image(ramp_picture(60, 50), tiny.vision))

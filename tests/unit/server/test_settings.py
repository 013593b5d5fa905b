"""Options of a server and what is refused among them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from phi4.errors import InvalidRequest
from phi4.server.http.body import MAX_DEPTH, MAX_VALUES
from phi4.server.http.gate import MAX_HEADER_BYTES, MAX_HEADERS
from phi4.server.settings import BOUNDS, SERVER_MEDIA_LIMITS, ServerSettings

DIGEST = "ab" * 32


def test_defaults_are_local_bounded_and_without_remote_fetching() -> None:
    settings = ServerSettings()
    assert settings.host == "127.0.0.1" and settings.is_local and not settings.allow_remote
    unbounded = {"cache_bytes", "max_crops", "max_prompt_tokens", "max_new_tokens"}
    for name in BOUNDS:
        assert (getattr(settings, name) is None) == (name in unbounded), name


def test_every_number_has_bounds() -> None:
    numbers = [f.name for f in fields(ServerSettings) if str(f.type).startswith(("int", "float"))]
    assert set(numbers) == set(BOUNDS)


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_numbers_outside_their_bounds_are_refused_by_name(name: str) -> None:
    low, high = BOUNDS[name]
    for wrong in (low - 1, high + 1, "5", True, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match=name):
            ServerSettings(**{name: wrong})


def test_every_default_lies_within_its_bounds() -> None:
    for name, (low, high) in BOUNDS.items():
        value: Any = getattr(ServerSettings(), name)
        assert value is None or low <= value <= high


def test_the_page_about_serving_states_the_limits_that_hold(repository: Path) -> None:
    table = (
        (repository / "docs/serving.md").read_text().partition("| what | default |")[2].partition("\n\n")[0]
    )
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE))
    told = {what: [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", rows[what])] for what in rows}
    s, m = ServerSettings(), SERVER_MEDIA_LIMITS
    mib = 2**20
    expected = {
        "connections open at a time": [s.max_connections],
        "requests under way, of them of one key": [s.max_requests, s.max_requests_per_key],
        "answers computed at a time": [s.max_running],
        "body; JSON nesting; values in a body": [s.max_body_bytes / mib, MAX_DEPTH, MAX_VALUES],
        "headers": [MAX_HEADERS, MAX_HEADER_BYTES / 1024],
        "tokens of a prompt; of an answer; of an answer nobody gave a limit": [s.default_new_tokens],
        "tokens of all requests under way": [s.max_waiting_tokens],
        "answers to one prompt (`n`); prompts, or parts of a recording, in a request": [
            s.max_choices, s.max_rows
        ],
        "pictures, recordings, videos, files in a request": [s.max_media],
        "a picture": [m.max_image_bytes / mib, m.max_image_px, 2, 25, m.max_image_side_px],
        "a recording": [m.max_audio_bytes / mib, m.max_audio_s / 60, m.max_channels],
        "a video; frames shown of all videos of a request": [
            m.max_video_bytes / mib, m.max_video_s / 60, m.max_frames
        ],
        "a document; pages and characters read of all of a request": [
            m.max_document_bytes / mib, m.max_pages, m.max_document_chars
        ],
        "time to read one document, or the frames of one video": [m.max_decode_s],
        "a file behind a URL, time for it; for all URLs of a request": [
            m.max_remote_bytes / mib, m.remote_timeout_s, s.fetch_timeout_s
        ],
        "time for the head of a request, for its body": [s.header_timeout_s, s.body_timeout_s],
        "time to prepare, to wait for a turn": [s.prepare_timeout_s, s.queue_timeout_s],
        "expected wait for a turn": [s.max_wait_s],
        "time to the first token, for everything": [s.first_token_timeout_s, s.request_timeout_s / 60],
    }  # fmt: skip
    assert told == expected


def test_other_machines_need_a_key_or_an_explicit_word() -> None:
    with pytest.raises(InvalidRequest, match="--api-key"):
        ServerSettings(host="0.0.0.0")
    assert not ServerSettings(host="0.0.0.0", key_digests=(DIGEST,)).is_local
    assert not ServerSettings(host="0.0.0.0", open_to_all=True).is_local


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_is_local(host: str) -> None:
    assert ServerSettings(host=host).is_local


def test_a_key_in_place_of_its_digest_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidRequest) as refused:
        ServerSettings(key_digests=("my-secret-key",))
    assert "my-secret-key" not in str(refused.value)


def test_host_names_are_the_loopback_ones_the_address_listened_at_and_those_added() -> None:
    assert ServerSettings().hosts == ("localhost", "127.0.0.1", "[::1]")
    assert ServerSettings(host="10.0.0.7", key_digests=(DIGEST,)).hosts[-1] == "10.0.0.7"
    assert ServerSettings(host="fd00::7", key_digests=(DIGEST,)).hosts[-1] == "[fd00::7]"
    assert ServerSettings(allowed_hosts=("phi.example",)).hosts == (
        "localhost",
        "127.0.0.1",
        "[::1]",
        "phi.example",
    )


@pytest.mark.parametrize(
    "origin", ["*", "null", "chat.example", "https://a/", "https://a/b", "https://*.a", ""]
)
def test_an_origin_that_is_none_or_stands_for_many_is_refused(origin: str) -> None:
    with pytest.raises(InvalidRequest, match="scheme://host"):
        ServerSettings(allowed_origins=("https://chat.example", origin))


def test_origins_are_what_browsers_and_programs_built_on_them_send() -> None:
    given = (
        "https://a.example",
        "http://localhost:3000",
        "app://obsidian.md",
        "chrome-extension://abc",
        "file://",
    )
    assert ServerSettings(allowed_origins=given).allowed_origins == given


def test_two_adapters_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="own name"):
        ServerSettings(adapters=(("a", "x"), ("a", "y")))

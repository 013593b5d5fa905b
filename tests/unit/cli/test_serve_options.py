"""What the command line of `phi4 serve` turns into."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path

import pytest

from phi4.cli.main import build_parser
from phi4.cli.serve import LIMITS, settings_of
from phi4.errors import InvalidRequest
from phi4.server.settings import BOUNDS, ServerSettings

KEY = "0123456789abcdef0123"


def parsed(*words: str) -> ServerSettings:
    return settings_of(build_parser().parse_args(["serve", *words]))


def test_without_options_the_settings_are_the_defaults() -> None:
    assert parsed() == ServerSettings()


def test_every_limit_of_the_settings_has_an_option_or_is_no_operators_business() -> None:
    offered = {name for name, _, _ in LIMITS} | {"port", "max_crops"}
    inner = {"max_queue_tokens_per_turn", "send_buffer_events", "send_timeout_s", "header_timeout_s"}
    assert offered | inner == set(BOUNDS)
    assert offered <= {field.name for field in fields(ServerSettings)}


@pytest.mark.parametrize(("name", "kind", "_"), LIMITS)
def test_limits_reach_the_settings(name: str, kind: type, _: str) -> None:
    low, _high = BOUNDS[name]
    value = kind(low + 1)
    assert getattr(parsed("--" + name.replace("_", "-"), str(value)), name) == value


def test_keys_are_kept_as_digests(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}-a\n\n{KEY}-b\n")
    found = parsed("--api-key", KEY, "--api-key-file", str(file)).key_digests
    assert found == tuple(hashlib.sha256(key.encode()).hexdigest() for key in (KEY, f"{KEY}-a", f"{KEY}-b"))


@pytest.mark.parametrize(
    "key", ["tooshort", "with a space in the middle", "ümlaut-ümlaut-ümlaut", "tab\tstop-tab\tstop"]
)
def test_keys_that_can_be_guessed_or_not_sent_are_refused_without_showing_them(key: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed("--api-key", key)
    assert key not in str(refused.value)


def test_a_key_file_without_keys_does_not_open_the_server(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(InvalidRequest, match="holds no key"):
        parsed("--api-key-file", str(tmp_path / "empty"))
    with pytest.raises(InvalidRequest, match="cannot be read"):
        parsed("--api-key-file", str(tmp_path / "none"))


def test_other_machines_are_not_served_by_accident() -> None:
    with pytest.raises(InvalidRequest, match="--open-to-all"):
        parsed("--host", "0.0.0.0")
    assert parsed("--host", "0.0.0.0", "--open-to-all").open_to_all


def test_adapters_are_given_as_name_and_folder() -> None:
    assert parsed("--adapter", "a=x", "--adapter", "b=y=z").adapters == (("a", "x"), ("b", "y=z"))
    for wrong in ("a", "=x", "a=", "a b=x"):
        with pytest.raises(InvalidRequest):
            parsed("--adapter", wrong)


def test_names_that_collide_are_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        parsed("--served-model-name", "a", "--adapter", "a=x")


def test_switches_reach_the_settings() -> None:
    found = parsed("--no-page", "--allow-remote", "--no-speculation", "--allowed-host", "phi.example")
    assert (found.page, found.allow_remote, found.speculate) == (False, True, False)
    assert found.allowed_hosts == ("phi.example",)
    assert parsed("--allowed-origin", "https://a", "--allowed-origin", "app://b").allowed_origins == (
        "https://a",
        "app://b",
    )
    assert parsed("--voice-activity", "vad.onnx").voice_activity == "vad.onnx"

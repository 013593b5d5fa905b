"""Fonts: the ones on the list, from where they are said to be, or an error that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi4.data import fonts
from phi4.data.fonts import BUILT_IN, HELD_OUT_FACES, TRAIN_FACES, available_faces, load_face
from phi4.errors import MissingExtra


def test_every_face_of_the_list_is_found() -> None:
    assert set(available_faces()) == set(TRAIN_FACES + HELD_OUT_FACES)


def test_faces_draw_at_the_size_asked_for() -> None:
    for face in TRAIN_FACES + HELD_OUT_FACES:
        small, large = (load_face(face, size).getlength("reading") for size in (16, 48))
        assert large == pytest.approx(3 * small, rel=0.12), face


def test_a_missing_face_names_itself_and_the_package() -> None:
    with pytest.raises(MissingExtra, match=r"Nowhere-Bold.ttf was not found.*apt install fonts-dejavu-core"):
        load_face("Nowhere-Bold", 20)


def test_a_machine_without_fonts_still_has_the_built_in_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fonts, "_index", lambda extra: {})
    assert available_faces() == (BUILT_IN,)


def test_the_named_folder_is_searched_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = Path(load_face("DejaVuSans", 20).path)
    (tmp_path / "deep").mkdir()
    copy = tmp_path / "deep" / "DejaVuSans.ttf"
    copy.write_bytes(original.read_bytes())
    monkeypatch.setenv("PHI4_FONTS_DIR", str(tmp_path))
    load_face.cache_clear()
    assert Path(load_face("DejaVuSans", 20).path) == copy
    load_face.cache_clear()

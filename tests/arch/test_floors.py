"""Rooms import from lower floors only, and all but three work where torch does not exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TORCH_ROOMS = ("phi4.model", "phi4.torch_runner", "phi4.train")

BLOCK = """
import importlib, importlib.abc, pkgutil, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft", "accelerate"):
            raise ImportError(f"{name} is blocked in this test")
sys.meta_path.insert(0, Refuse())
"""


def python(code: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=check, timeout=120
    )


def test_import_contracts_hold(repository: Path) -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(
        [*command, "--no-cache"], cwd=repository, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_torch_free_room_imports_with_torch_blocked() -> None:
    walk = f"""
import phi4
seen = 0
for found in pkgutil.walk_packages(phi4.__path__, "phi4."):
    if not found.name.startswith({TORCH_ROOMS!r}) and found.name != "phi4.__main__":
        importlib.import_module(found.name)
        seen += 1
assert seen > 40, seen
assert not {{"torch", "transformers", "peft"}} & set(sys.modules)
"""
    done = python(BLOCK + walk, check=False)
    assert done.returncode == 0, done.stderr


def test_processes_that_prepare_training_data_need_no_torch() -> None:
    names = ("feed", "collate", "sources", "order", "settings", "recipes", "counting", "glyphs")
    code = f"for name in {names!r}: importlib.import_module('phi4.train.' + name)"
    done = python(BLOCK + code, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("room", TORCH_ROOMS)
def test_blocking_torch_really_blocks(room: str) -> None:
    deepest = {"phi4.model": "phi4.model.decoder", "phi4.train": "phi4.train.trainer"}.get(
        room, room + ".runner"
    )
    done = python(BLOCK + f"importlib.import_module({deepest!r})", check=False)
    assert done.returncode != 0
    assert "is blocked in this test" in done.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {
        "torch",
        "numpy",
        "rich",
        "PIL",
        "soundfile",
        "soxr",
        "tokenizers",
        "huggingface_hub",
        "safetensors",
    }
    done = python(f"import sys, phi4; print(sorted({heavy!r} & set(sys.modules)))")
    assert done.stdout.strip() == "[]"

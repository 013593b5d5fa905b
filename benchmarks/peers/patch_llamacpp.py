"""One barrier in llama.cpp's AMX kernels: `python peers/patch_llamacpp.py SOURCES`.

gcc 12 takes the tile configuration for eight bytes and may leave out writing the others before it is loaded,
and the program then ends with an illegal operand. A compiler barrier before the load makes all of it written;
it costs nothing at run time and changes no result.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

BARRIER = '__asm__ volatile("" ::: "memory");'
LOAD = re.compile(r"^(?P<indent>[ \t]*)(?P<load>_tile_loadconfig\(&\w+\);)", re.MULTILINE)
_OLD = re.compile(rf"^[ \t]*{re.escape(BARRIER)}\n", re.MULTILINE)
FILE = "ggml/src/ggml-cpu/amx/mmq.cpp"


def patched(text: str) -> str:
    """The source with a barrier before every load of a tile configuration; twice is as once."""
    return LOAD.sub(rf"\g<indent>{BARRIER}\n\g<indent>\g<load>", _OLD.sub("", text))


def main(sources: Path) -> int:
    """Patch the file, wherever llama.cpp lies in the sources."""
    found = sorted(sources.rglob(FILE))
    if not found:
        print(f"{sources}: no {FILE} in it; give the sources of llama-cpp-python", file=sys.stderr)
        return 1
    for path in found:
        text = path.read_text(encoding="utf-8")
        if not LOAD.search(text):
            print(f"{path}: loads no tile configuration; left as it is", file=sys.stderr)
            continue
        path.write_text(patched(text), encoding="utf-8")
        print(f"{path}: barrier before loading the tile configuration")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""Writing the text decoder as GGUF, the file llama.cpp loads. Write-only: nothing here reads GGUF.

    write_gguf(checkpoint, checkpoint.path, Path("phi4.gguf"), "float16")
    left_out(checkpoint.config)        # what the file does not hold

Needs the `gguf` package (extra `export`), which is imported when a file is written and nowhere else.
"""

from __future__ import annotations

from phi4.gguf.writing import DTYPES, GgufDtype, left_out, write_gguf

__all__ = ["DTYPES", "GgufDtype", "left_out", "write_gguf"]

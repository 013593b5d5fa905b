"""All matrices of a GGUF to Q4_0: `python -P -m peers.quantize_gguf IN OUT THREADS`.

As `llama-quantize --pure`: the table too, so that a token costs as few bytes as llama.cpp can make it.
"""

from __future__ import annotations

import ctypes
import sys

import llama_cpp

Q4_0 = 2
"""LLAMA_FTYPE_MOSTLY_Q4_0 of llama.h."""


def quantize(source: str, target: str, threads: int) -> int:
    """Write `target`; returns llama.cpp's own code, 0 when all is well."""
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.pure, params.nthread = Q4_0, True, threads
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(quantize(sys.argv[1], sys.argv[2], int(sys.argv[3])))

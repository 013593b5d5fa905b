"""The letter legend for shapes in signatures and comments.

| letter | meaning                         | letter | meaning                              |
|--------|---------------------------------|--------|--------------------------------------|
| B      | batch rows                      | V      | vocabulary entries                   |
| T      | query positions (tokens)        | R      | adapter rank                         |
| S      | key positions (tokens)          | L      | layers                               |
| D      | hidden size                     | C      | crops of one picture, global first   |
| N      | query heads                     | P      | patches of one crop                  |
| K      | key/value heads                 | M      | mel channels                         |
| H      | head dimension                  | A      | audio frames (10 ms each)            |
| F      | feed-forward (inner) dimension  |        |                                      |

A shape is written `[B, T, D]`. Masks say in their docstring what True means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
AnyArray = NDArray[Any]

"""The version of the package: the one place that states it.

The build backend reads this file, `phi4.__version__` and `phi4 version` repeat it.
"""

from __future__ import annotations

__version__ = "0.1.0"

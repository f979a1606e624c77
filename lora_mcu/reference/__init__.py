# SPDX-License-Identifier: Apache-2.0
"""The numerics contract (docs/numerics.md) in NumPy, independent of the C.

Slow: one rounding an operation, sums in the written order. It exists to be compared with the twin; nothing of the
compiler, the twin or the firmware uses it.
"""

from lora_mcu.reference.model import Reference

__all__ = ["Reference"]

# SPDX-License-Identifier: Apache-2.0
"""Writes what the README's commands take: the demo's model and one person's windows, as if they were your own.

python examples/har/one_person.py [FOLDER]     # model.tflite, data.npz (to adapt), held_out.npz (to test)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import windows

PERSON, SEED = 5, 0


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    har = windows.load()
    split = windows.split_person(har, PERSON, SEED)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes((windows.HERE / "har.tflite").read_bytes())
    for name, chosen in (("data.npz", split.train), ("held_out.npz", split.test)):
        np.savez_compressed(folder / name, x=har.x[chosen], y=har.y[chosen], label_names=np.array(har.label_names))
        print(f"{folder / name}: x {har.x.dtype} {list(har.x[chosen].shape)}, y {list(har.y[chosen].shape)}")


if __name__ == "__main__":
    main()

"""Interpolate trained weights with the original ones.

The mix keeps what training added and recovers what it lost on other data (Wortsman et al., "Robust fine-tuning of
zero-shot models", CVPR 2022).

    python training/blend.py TRAINED.safetensors SHARE OUT.safetensors

SHARE is the share of the trained weights, 0 to 1.
"""

from __future__ import annotations

import sys

from make_embedded import package_folder
from safetensors.numpy import load_file, save_file


def main() -> None:
    """Write the mix of every weight that both files have."""
    trained, share, out = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    old, new = load_file(package_folder() / "model.safetensors"), load_file(trained)
    mixed = {
        name: value * share + old[name] * (1 - share) if name in old and value.dtype.kind == "f" else value
        for name, value in new.items()
    }
    save_file({name: value.astype(new[name].dtype) for name, value in mixed.items()}, out)


if __name__ == "__main__":
    main()

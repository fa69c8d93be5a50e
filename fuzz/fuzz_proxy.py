#!/usr/bin/env python3
"""Fuzz the PROXY parser, which is Python, with atheris; `proxy_model.py` tells what is right.

usage: fuzz_proxy.py [libFuzzer's options] corpus ...
       fuzz_proxy.py --replay corpus ...        (without atheris)
"""

from __future__ import annotations

import sys
from pathlib import Path


def replay(folders: list[str]) -> None:
    """Check the files of the folders once."""
    from proxy_model import check

    paths = sorted(path for folder in folders for path in Path(folder).iterdir())
    for path in paths:
        try:
            check(path.read_bytes())
        except BaseException:
            print(path, file=sys.stderr)
            raise
    print(f"proxy: {len(paths)} inputs, all as the model says")


def main() -> None:
    """Fuzz or replay."""
    if sys.argv[1:2] == ["--replay"]:
        replay(sys.argv[2:])
        return
    import atheris

    with atheris.instrument_imports(include=["pycoronet.layers", "proxy_model"]):
        from proxy_model import check

    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

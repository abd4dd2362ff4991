"""Runs in sd-scripts' environment: its train_network.py as it stands, with a note of when each update was made.

`python kohya_driver.py THREADS SCRIPT ARGUMENT…`; the last line of what it prints is JSON: the clock after each update
of the weights, in seconds.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


def main() -> None:
    """Train, then tell."""
    threads, script, *arguments = sys.argv[1:]
    torch.set_num_threads(int(threads))
    ends: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    sys.argv = [script, *arguments]
    # Its own modules lie beside the script.
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")
    hook.remove()
    print(json.dumps(ends), flush=True)


if __name__ == "__main__":
    main()

"""`python -m bench.device --minutes 8 --out DIR`: are the kernels right on this GPU, how fast are they against its
memory and against the peer, what do training steps cost. Most valuable first; rows are written as they are known.

`stages` lists them; each runs in a process of its own within its own time, so that a crash or a limit loses one stage.
"""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """The command. Returns 0, or 1 where a number was wrong, a test failed or was skipped, or a stage did not end."""
    from .command import main as run

    return run(argv)

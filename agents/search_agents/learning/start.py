"""What must be set around the import of torch, ray and transformers."""

from __future__ import annotations

import logging
import os

__all__ = ["limit_threads", "quiet_libraries"]


def limit_threads(threads: int) -> None:
    """Bound the threads of every numerical library of this process, and of those it starts.

    Idle threads sleep instead of spinning: two spinning processes on one core are many times slower than one.
    Values that the user has set are kept. Ray does not send usage statistics unless it is asked to.
    """
    defaults = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Keep the progress bars and hints of transformers and RLlib out of what a run shows; errors still come through."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    for name in ("ray.rllib", "ray._common.deprecation"):
        logging.getLogger(name).setLevel(logging.ERROR)

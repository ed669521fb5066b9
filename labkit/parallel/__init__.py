"""Parallel inference: a pool of workers, and what it really gains on this machine."""

from __future__ import annotations

from labkit.parallel.gain import PoolGain, pool_gain
from labkit.parallel.pool import WorkerPool

__all__ = ["PoolGain", "WorkerPool", "pool_gain"]

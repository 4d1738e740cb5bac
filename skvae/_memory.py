"""Memory: how much is free, and what is freed kept for the operation that asks for as much."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

#: Of the memory that is free, what the trainings of a search may take, or the rows of a fit.
SHARE_OF_MEMORY = 0.5

# The largest block that glibc learns from, less its own header.
_LARGEST_BLOCK = 2**25 - 2**13


def keep_freed_memory() -> None:
    """Have freed memory stay in the process, up to 64 MiB a thread.

    PyTorch takes the memory of every result from the C library. That of GNU hands what is
    free at the end of its heap back to the system, beyond 128 KiB at first, and takes it again
    page by page, which costs as much as the small operations here. How much it keeps it learns:
    twice the largest block (up to 32 MiB) that has been freed. So a block is freed, of which
    nothing was ever touched. Other libraries do as they always do.
    """
    torch.empty(_LARGEST_BLOCK, dtype=torch.uint8, device="cpu")


def free_bytes(device: torch.device) -> float:
    """What is left of the device's memory."""
    if device.type == "cuda":
        # What PyTorch has, and nothing is in, is free too.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    return _free_host_bytes()


def _free_host_bytes() -> float:
    """What the machine and the control group have left; half of all where they do not say."""
    total = 2.0**31
    with contextlib.suppress(OSError, ValueError, AttributeError):
        total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    free = [0.5 * total]
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/meminfo") as lines:
        line = next(line for line in lines if line.startswith("MemAvailable"))
        free = [1024.0 * float(line.split()[1])]
    with contextlib.suppress(OSError, ValueError):  # "max" is no number, and no limit
        limit, used = (
            float(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current")
        )
        free.append(limit - used)
    return min(free)

"""Memory that is freed on the CPU, kept for the operation that asks for as much next."""

from __future__ import annotations

import torch

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

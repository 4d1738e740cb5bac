"""CUDA graphs: a step recorded once and replayed, so that launches cost next to nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Before a capture, autograd and cuBLAS have to have set up their workspaces.
_N_WARMUP = 3

# Only one capture may be under way in a process.
_LOCK = threading.Lock()


def capture(
    step: Callable[[], None], state: Sequence[Tensor], device: torch.device
) -> Callable[[], None] | None:
    """A function that does what ``step`` does; None on the CPU, where there is nothing to gain.

    ``step`` takes and returns nothing, works on tensors that stay where they are, has
    fixed shapes and reads nothing on the host. ``state`` are the tensors it changes:
    they are put back after the warm-up.
    """
    if device.type != "cuda":
        return None
    saved = [tensor.clone() for tensor in state]
    with _LOCK, torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_N_WARMUP):
                step()
                # At once, as a step may count on the state to say how far it may go. The
                # capture below runs nothing, and so changes nothing.
                for tensor, value in zip(state, saved, strict=True):
                    tensor.copy_(value)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # On a stream of this device: by default it is one for all, of that of the first capture.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            step()
    return graph.replay

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

# One stream of each thread and device to capture on: for every stream that it meets cuBLAS keeps a
# workspace, which a new stream for every graph would add to.
_OWN = threading.local()


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
        side = _side_stream(device)
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


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    streams: dict[torch.device, torch.cuda.Stream] = vars(_OWN).setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)
    return streams[device]

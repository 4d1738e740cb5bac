"""Before anything imports scipy: the array API checks are skipped in silence without this."""

import os

os.environ["SCIPY_ARRAY_API"] = "1"
# So that what is skipped on Apple hardware is skipped for want of the hardware.
os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] = "1"
# No windows.
os.environ["MPLBACKEND"] = "Agg"

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--simulated-cuda",
        action="store_true",
        help="simulate a CUDA device, if there is none: see tests/simulated_cuda.py",
    )


def pytest_configure(config):
    if config.getoption("--simulated-cuda"):
        import torch

        if not torch.cuda.is_available():
            import simulated_cuda

            simulated_cuda.install()


@pytest.fixture
def ctrl_c_in_the_fourth_epoch(monkeypatch):
    """A user who has had enough: every fit gets three epochs, then a KeyboardInterrupt."""
    from skvae._training import _Group

    rounds, plain = [], _Group.round

    def interrupted(self):
        rounds.append(1)
        if len(rounds) > 3:
            raise KeyboardInterrupt
        plain(self)

    monkeypatch.setattr(_Group, "round", interrupted)

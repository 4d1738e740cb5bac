"""How long things take, compared with the least they could take and with other packages.

    python benchmarks/speed.py --output docs/speed.md
    python benchmarks/speed.py --parts steps --sizes digits --repeats 3

steps
    A training step of the same network, batch and optimiser: here, in the packages of
    peers.py as their users get them, and as bare matrix products, which are the floor.
bound
    Seconds until held-out rows have the bound that a peer reaches by its own full training.
busy
    A small model's step while other processes keep all cores but one at work.
inference
    `transform` and `score_samples` compared with bare networks of the same layers; their memory.
import
    `import skvae` after what a user of scikit-learn and torch has imported already.

Everything that is compared is measured in turns (A B C A B C ...), so that a machine that
slows down slows all of them down. Ratios are given twice: of the medians, and the median of
the ratios within each turn, with their range. A ratio means more than its seconds.

A fit has parts that are not steps. The step's time is that of a long fit less that of a fit
of one epoch, over the steps between them.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from mnist import peak_gib, uncaptured
from peers import PEERS, available
from results import cores, counted, in_a_process, markdown, status_mib
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from skvae import VAETransformer
from skvae._run import Run
from skvae._training import Training
from skvae._vae import VAE, Architecture

N_TOGETHER = 16
SEED = 0

Work = Callable[[], object]


class Size(NamedTuple):
    """A network and its rows, of which the batch is a divisor: no step is smaller."""

    n_columns: int
    hidden_layer_sizes: tuple[int, ...]
    n_components: int
    batch_size: int
    n_rows: int
    n_epochs: int  # of a measurement

    @property
    def n_steps(self) -> int:
        return self.n_epochs * self.n_rows // self.batch_size


SIZES = {
    "digits": Size(64, (64, 64), 8, 128, 1280, 30),
    "tabular": Size(50, (128, 128), 10, 256, 4096, 6),
    "image": Size(784, (512, 512), 32, 128, 2048, 2),
}


class Layer(NamedTuple):
    """Of a network: its products with the batch."""

    n_inputs: int
    n_outputs: int
    is_first: bool  # of the encoder: its inputs are data, which need no gradient


class Rows(NamedTuple):
    """Standardised rows to learn from and rows held out, float32."""

    train: np.ndarray
    held_out: np.ndarray


class Table(NamedTuple):
    """What a part has to say."""

    title: str
    text: str
    header: list[str]
    rows: list[list[str]]
    n_words: int  # columns at the left that are words

    def __str__(self) -> str:
        table = markdown(self.header, ["{}"] * len(self.header), self.rows, self.n_words)
        return f"## {self.title}\n\n{self.text}\n\n{table}\n"


# ------------------------------------------------------------------ a training step


def expectation(sizes: Mapping[str, Size], device: torch.device) -> Table:
    """The floor, before anything is measured but the machine."""
    rate = product_rate(device)
    rows = []
    for name, size in sizes.items():
        layers = [*network(size), *linear_path(size)]
        n_weights = sum(layer.n_inputs * layer.n_outputs for layer in layers)
        n_activations = size.batch_size * sum(layer.n_outputs for layer in layers)
        n_operations = sum(operations(layer, size.batch_size) for layer in layers)
        n_bytes = 4 * (10 * n_weights + 6 * n_activations)
        by_products = 1e6 * n_operations / rate
        by_bytes = 1e6 * n_bytes / copy_rate(4 * n_weights, device)
        rows.append(
            [
                name,
                f"{n_weights:,}",
                f"{n_operations / 1e6:.1f}",
                f"{n_bytes / 1e6:.2f}",
                f"{by_products:.0f}",
                f"{by_bytes:.0f}",
                f"{by_products + by_bytes:.0f}",
            ]
        )
    return Table(
        "What to expect",
        f"From the shapes alone, with the linear path. Operations: 2 B I O for each product. "
        f"Bytes: each weight is read twice, its gradient written and read, and Adam reads three "
        f"numbers and writes three; each output of a layer and its gradient are written once and "
        f"read twice. The machine: {rate / 1e9:.0f} GFLOP/s in a product of 1024 x 1024 matrices, "
        f"and copies of as many bytes as the weights have.{launch_floor(device)}",
        [
            "size",
            "weights",
            "operations a step, 1e6",
            "bytes a step, 1e6",
            "operations, us",
            "bytes, us",
            "both, us",
        ],
        rows,
        1,
    )


def network(size: Size) -> list[Layer]:
    """The layers of encoder and decoder, as every peer has them."""
    encoder = (size.n_columns, *size.hidden_layer_sizes, 2 * size.n_components)
    decoder = (size.n_components, *size.hidden_layer_sizes[::-1], size.n_columns)
    first, *others = pairwise(encoder)
    return [Layer(*first, True), *(Layer(*pair, False) for pair in [*others, *pairwise(decoder)])]


def linear_path(size: Size) -> list[Layer]:
    """The linear maps beside both networks, which only this package has."""
    return [
        Layer(size.n_columns, 2 * size.n_components, True),
        Layer(size.n_components, size.n_columns, False),
    ]


def operations(layer: Layer, batch_size: int) -> int:
    """Multiplications and additions of a step, forward and backward."""
    return 2 * batch_size * layer.n_inputs * layer.n_outputs * (2 if layer.is_first else 3)


def products(layers: Sequence[Layer], batch_size: int, n_models: int, device: torch.device) -> Work:
    """The matrix products of a step, forward and backward, into memory that is there."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(n_models, *shape, device=device)

    work: list[Work] = []
    for n_inputs, n_outputs, is_first in layers:
        x, weight = normal(batch_size, n_inputs), normal(n_inputs, n_outputs)
        y, dy = normal(batch_size, n_outputs), normal(batch_size, n_outputs)
        work.append(partial(torch.bmm, x, weight, out=y))
        work.append(partial(torch.bmm, x.mT, dy, out=torch.empty_like(weight)))
        if not is_first:
            work.append(partial(torch.bmm, dy, weight.mT, out=torch.empty_like(x)))
    return captured(lambda: [product() for product in work], device)


def captured(work: Work, device: torch.device) -> Work:
    """On a GPU, a CUDA graph of the work: the host's launches are no part of a floor."""
    if device.type != "cuda":
        return work
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def replay(_keep: Work = work) -> None:  # a graph does not hold the tensors it works on
        graph.replay()

    return replay


def product_rate(device: torch.device) -> float:
    """Operations a second in a large product."""
    n = 1024
    a, b, c = (torch.randn(n, n, device=device) for _ in range(3))
    return 2 * n**3 / seconds_a_call(lambda: torch.mm(a, b, out=c))


def copy_rate(n_bytes: int, device: torch.device) -> float:
    """Bytes a second, read and written, where so many of them live: in a cache perhaps."""
    source, target = (torch.zeros(n_bytes // 4, device=device) for _ in range(2))
    return 2 * n_bytes / seconds_a_call(captured(lambda: target.copy_(source), device))


def launch_floor(device: torch.device) -> str:
    """What the smallest kernel takes in a CUDA graph."""
    if device.type != "cuda":
        return ""
    one, n = torch.zeros(1, device=device), 1000
    seconds = seconds_a_call(captured(lambda: [one.add_(1) for _ in range(n)], device))
    return f" The smallest kernel in a CUDA graph takes {1e6 * seconds / n:.2f} us."


def steps(sizes: Mapping[str, Size], arguments: argparse.Namespace) -> Table:
    """All contenders in turns, size by size."""
    device = arguments.device
    rows = []
    for name, size in sizes.items():
        X = rows_of(name, size, arguments).train
        alone = one_fit(size, device)
        work: dict[str, Callable[[], float]] = {
            "skvae, fit": partial(step_of_fit, alone, X, size),
            "skvae, training alone": step_of_training(X, size, 1, device),
            f"skvae, {N_TOGETHER} at once, a model": step_of_training(X, size, N_TOGETHER, device),
        }
        if device.type == "cuda":
            work["skvae, fit, eager"] = uncaptured()(work["skvae, fit"])
        work |= {
            peer: partial(step_of_fit, peer_fit(peer, size, device), X, size)
            for peer in available().names
        }
        for what, layers in (("network", network(size)), ("linear path", linear_path(size))):
            for n, words in ((1, ""), (N_TOGETHER, f", {N_TOGETHER} at once, a model")):
                floor = products(layers, size.batch_size, n, device)
                work[f"products of the {what}{words}"] = partial(seconds_a_model, floor, n)
        rows += comparison(name, in_turns(work, arguments.repeats), 1e6, ".0f")
    missing = ", ".join(f"{name} ({why})" for name, why in available().missing.items())
    return Table(
        "A training step",
        f"The same layers, batch, rows and Adam for all; a peer keeps its activation and dropout. "
        f"Ours is the default model, with a linear path and learned variances, which no peer has; "
        f"init='random', no early stopping. 'fit' is the public fit, "
        f"as in the peers; 'training' the loop inside it, one run or {N_TOGETHER} of different "
        f"seeds. Products are a floor: nothing but `torch.bmm` on the same shapes. "
        f"{'Not measured: ' + missing + '. ' if missing else ''}{how(arguments)}",
        ["size", "what", "us a step", "of ours", "pairwise (range)"],
        rows,
        2,
    )


def one_fit(size: Size, device: torch.device) -> Callable[[np.ndarray, int], object]:
    """(X, epochs) -> a fit of the default model that is nothing but training steps."""

    def fit(X: np.ndarray, max_iter: int) -> object:
        return VAETransformer(
            size.n_components,
            hidden_layer_sizes=size.hidden_layer_sizes,
            batch_size=size.batch_size,
            init="random",
            early_stopping=False,
            max_iter=max_iter,
            random_state=SEED,
            device=str(device),
        ).fit(X)

    return fit


def peer_fit(name: str, size: Size, device: torch.device) -> Callable[[np.ndarray, int], object]:
    """(X, epochs) -> a fit of the same network by a peer."""

    def fit(X: np.ndarray, max_iter: int) -> object:
        return PEERS[name](
            n_components=size.n_components,
            hidden_layer_sizes=size.hidden_layer_sizes,
            batch_size=size.batch_size,
            learning_rate_init=1e-3,
            max_iter=max_iter,
            random_state=SEED,
            device=str(device),
        ).fit(X)

    return fit


def step_of_fit(fit: Callable[[np.ndarray, int], object], X: np.ndarray, size: Size) -> float:
    """Seconds of a step: of a long fit less a short one."""
    short = seconds_of(lambda: fit(X, 1))
    long = seconds_of(lambda: fit(X, 1 + size.n_epochs))
    return (long - short) / size.n_steps


def step_of_training(
    X: np.ndarray, size: Size, n_runs: int, device: torch.device
) -> Callable[[], float]:
    """Seconds of a step and a model, of a training that goes on from turn to turn."""
    x = torch.as_tensor(X, device=device)
    rounds = Training(list(runs(x, size, n_runs)), x, x[:, :0]).rounds()
    next(rounds)  # what comes before the first step, and a capture
    size = size._replace(n_epochs=max(1, size.n_epochs // n_runs))

    def seconds() -> float:
        all_seconds = seconds_of(lambda: [next(rounds) for _ in range(size.n_epochs)])
        return all_seconds / size.n_steps / n_runs

    return seconds


def runs(x: Tensor, size: Size, n_runs: int) -> Iterator[Run]:
    """Runs without end and without validation."""
    architecture = Architecture(
        size.n_columns, size.n_components, hidden_layer_sizes=size.hidden_layer_sizes
    )
    rows = torch.arange(len(x), device=x.device)
    for seed in range(n_runs):
        generator = torch.Generator(x.device).manual_seed(seed)
        model = VAE(architecture, device=x.device).randomise(generator, x.mean(0))
        yield Run(
            model,
            rows,
            rows[:0],
            seed,
            batch_size=size.batch_size,
            schedule="constant",
            max_iter=sys.maxsize,
        )


# ------------------------------------------------------------- time to a peer's bound

EPOCHS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]


Race = tuple[float, float, "Reached", "Reached"]


class Reached(NamedTuple):
    """The shortest fit whose held-out bound is as good as asked for; inf where none is."""

    n_epochs: float
    seconds: float
    bound: float


def time_to_bound(sizes: Mapping[str, Size], arguments: argparse.Namespace) -> Table:
    """Every peer with its defaults, and how soon its bound is reached here."""
    header = [
        "data",
        "peer",
        "its seconds",
        "its bound",
        "ours: epochs",
        "seconds",
        "bound",
        "peer / ours (range)",
        "its model: epochs",
        "seconds",
        "bound",
        "peer / ours (range)",
    ]
    rows = []
    for name, size in sizes.items():
        data = rows_of(name, size, arguments)
        for peer in available().names:
            turns = [
                race(peer, data, size.n_components, seed, arguments.device)
                for seed in range(arguments.repeats)
            ]
            rows.append([name, peer, *race_in_words(turns)])
    return Table(
        "Time to a peer's bound",
        "Held-out ELBO in nats a row of standardised data. The peer has its own networks, epochs "
        "and the rest, and the seconds are those of its whole fit. Ours are the seconds of the "
        "shortest whole fit, start and validation included, whose bound on the same rows is at "
        f"least the peer's, of fits with max_iter={EPOCHS[0]}, {EPOCHS[1]}, {EPOCHS[2]}, ..., "
        f"{EPOCHS[-1]}; inf where none is. 'ours' is the default VAETransformer; one epoch means "
        "that its start, factor analysis, was enough or nearly. 'its model' has no learned "
        "variance, no linear start and no early stopping, as no peer has them: "
        f"noise_variance=1.0, init='random', early_stopping=False. {how(arguments)}",
        header,
        rows,
        2,
    )


def race(name: str, data: Rows, n_components: int, seed: int, device: torch.device) -> Race:
    """Of one seed: the peer's seconds and bound, and what it takes to reach it."""
    peer = PEERS[name](n_components=n_components, random_state=seed, device=str(device))
    seconds = seconds_of(lambda: peer.fit(data.train))
    bound = peer.bound(data.held_out)
    ours = VAETransformer(n_components, random_state=seed, device=str(device))
    same = clone(ours).set_params(noise_variance=1.0, init="random", early_stopping=False)
    return seconds, bound, reach(ours, bound, data), reach(same, bound, data)


def race_in_words(turns: Sequence[Race]) -> list[str]:
    """Medians, and the ratios of each turn."""
    seconds, bounds, *ours = zip(*turns, strict=True)
    words = [f"{median(seconds):.2f}", f"{median(bounds):.2f}"]
    for reached in ours:
        n_epochs, our_seconds, our_bounds = zip(*reached, strict=True)
        words += [
            f"{median(n_epochs):.0f}",
            f"{median(our_seconds):.3f}",
            f"{median(our_bounds):.2f}",
            spread(a / b for a, b in zip(seconds, our_seconds, strict=True)),
        ]
    return words


def reach(vae: VAETransformer, bound: float, data: Rows) -> Reached:
    for max_iter in EPOCHS:
        vae.set_params(max_iter=max_iter)
        seconds = seconds_of(lambda: vae.fit(data.train))
        found = float(vae.elbo(data.held_out, n_draws=32).elbo.mean())
        if found >= bound:
            return Reached(max_iter, seconds, found)
    return Reached(math.inf, math.inf, found)


# ----------------------------------------------------------------------- a busy machine


def busy(size: Size, arguments: argparse.Namespace) -> Table:
    """A small model as users run it: with as many threads as there are cores."""
    X = rows_of("digits", size, arguments).train
    few = size._replace(n_epochs=15)  # threads that wait for each other can be very slow
    cpu = torch.device("cpu")
    ours = one_fit(size, cpu)
    vae = VAETransformer(size.n_components, max_iter=1, random_state=SEED).fit(X)
    named: dict[str, Callable[[], float]] = {
        "skvae, step": partial(step_of_fit, ours, X, size),
        "skvae, transform": lambda: median(seconds_of(lambda: vae.transform(X)) for _ in range(50)),
    }
    for name in available().names:
        named[f"{name}, step"] = partial(step_of_fit, peer_fit(name, few, cpu), X, few)
    work: dict[str, Callable[[], float]] = {}
    for name, seconds in named.items():
        work |= {f"{name}, quiet": seconds, f"{name}, busy": beside_others(seconds)}
    with threads(os.cpu_count() or 1):
        turns = in_turns(work, arguments.repeats)
    rows = []
    for name in named:
        quiet, crowded = turns[f"{name}, quiet"], turns[f"{name}, busy"]
        rows.append(
            [
                name,
                f"{1e6 * median(quiet):.0f}",
                f"{1e6 * median(crowded):.0f}",
                f"{median(crowded) / median(quiet):.2f}",
                spread(b / a for a, b in zip(quiet, crowded, strict=True)),
            ]
        )
    return Table(
        "A busy machine",
        f"A step of the size digits on the CPU by the public fit, and `transform` of its "
        f"{len(X):,} rows by a model of the default size, with {os.cpu_count()} threads of torch, "
        f"quiet and while other processes keep all cores but one busy. {how(arguments)}",
        ["what", "quiet, us", "busy, us", "busy / quiet", "pairwise (range)"],
        rows,
        1,
    )


def beside_others(work: Callable[[], float]) -> Callable[[], float]:
    """Work that is done while all cores but one are at work for somebody else."""

    def crowded() -> float:
        command = [sys.executable, "-c", "while True: pass"]
        others = [subprocess.Popen(command) for _ in range((os.cpu_count() or 1) - 1)]
        try:
            return work()
        finally:
            for other in others:
                other.kill()
                other.wait()

    return crowded


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------------------- inference

N_DRAWS = (16, 128)

# Bytes of the widest tensor of a bare pass: about what is quickest on a CPU, and for a GPU.
CACHED, AMPLE = 2**20, 2**25

# By who does it: the bare one first, ours last.
Contest = dict[str, Work]


class Bare(NamedTuple):
    """The layers that a user of torch would write, and nothing else."""

    encoder: nn.Sequential
    decoder: nn.Sequential
    n_components: int
    n_rows: int  # of a pass


def inference(sizes: Mapping[str, Size], arguments: argparse.Namespace) -> Table:
    """Time in turns, and the memory of ours in a process of its own."""
    rows = []
    for name, size in sizes.items():
        n_rows = arguments.n_numbers // size.n_columns
        for what, work in contests(size, n_rows, arguments.device).items():
            turns = in_turns(
                {who: partial(seconds_of, w) for who, w in work.items()}, arguments.repeats
            )
            found = comparison(name, turns, 1e3, ".1f")
            peak = in_a_process(peak_of, what, size, n_rows, arguments.device, arguments.threads)
            peaks = [""] * (len(work) - 1) + [f"{peak:.0f}"]
            rows += [
                [name, what, who, *figures, mib]
                for (_, who, *figures), mib in zip(found, peaks, strict=True)
            ]
    return Table(
        "Inference",
        f"{arguments.n_numbers:,} numbers in X for transform, and of these rows a 16th or a 128th "
        "for score_samples with as many draws. Bare: `torch.nn.Sequential` of the same layers, "
        "without the linear path, on tensors that are standardised already, in passes of "
        f"{CACHED / 2**20:g} MiB for the widest tensor; for the score it encodes, and for every "
        "draw takes z, decodes, and sums the squares of the residuals over the noise: a normal "
        "density without its constant. skvae takes one to three steps to the mode of p(z|x) of "
        "every row as well, each about as long as as many draws as there are components, and draws "
        "about it: of its draws fewer serve. With the linear path: the same and, parallel to each "
        "network, one layer from its inputs to its outputs. MiB: what the process grows by at its "
        f"peak, X excluded. {counted(arguments.threads, 'thread')} of torch. {how(arguments)}",
        ["size", "what", "who", "ms", "of bare", "pairwise (range)", "MiB"],
        rows,
        3,
    )


def contests(size: Size, n_rows: int, device: torch.device) -> dict[str, Contest]:
    """By what is done, in float32 and in float64."""
    random = np.random.default_rng(SEED)
    vae = VAETransformer(
        size.n_components,
        hidden_layer_sizes=size.hidden_layer_sizes,
        init="random",
        max_iter=1,
        random_state=SEED,
        device=str(device),
    ).fit(random.standard_normal((1000, size.n_columns)))
    # Last, so that nothing before them has taken more memory than there is now.
    wide = random.standard_normal((n_rows, size.n_columns))
    found: dict[str, Contest] = {}
    for X in (wide.astype(np.float32), wide):
        x = torch.as_tensor(X, device=device)
        peers = {
            "bare": bare(size, x, has_linear_path=False),
            "bare, with the linear path": bare(size, x, has_linear_path=True),
        }
        found[f"transform, {X.dtype}"] = {
            **{who: partial(encode_bare, peer, x) for who, peer in peers.items()},
            "skvae": partial(vae.transform, X),
        }
        for n in N_DRAWS:
            some = slice(n_rows // n)
            found[f"score_samples, {n} draws, {X.dtype}"] = {
                **{who: partial(score_bare, peer, x[some], n) for who, peer in peers.items()},
                "skvae": partial(vae.score_samples, X[some], n_draws=n),
            }
    return found


class Beside(nn.Module):
    """Two maps of the same inputs, their outputs added."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x).add_(self.second(x))


def bare(size: Size, x: Tensor, *, has_linear_path: bool) -> Bare:
    """In the dtype and on the device of x."""

    def network(*widths: int) -> nn.Sequential:
        layers = [[nn.Linear(*pair), nn.SiLU()] for pair in pairwise(widths)]
        chain = nn.Sequential(*[module for layer in layers for module in layer][:-1])
        if has_linear_path:
            chain = nn.Sequential(Beside(chain, nn.Linear(widths[0], widths[-1])))
        return chain.to(x)

    hidden, q = size.hidden_layer_sizes, size.n_components
    return Bare(
        network(size.n_columns, *hidden, 2 * q),
        network(q, *hidden[::-1], size.n_columns),
        q,
        (AMPLE if x.is_cuda else CACHED) // x.element_size() // max(size.n_columns, *hidden),
    )


@torch.inference_mode()
def encode_bare(peer: Bare, x: Tensor) -> Tensor:
    """Means of q(z|x)."""
    q = peer.n_components
    return torch.cat([peer.encoder(some)[:, :q] for some in x.split(peer.n_rows)]).cpu()


@torch.inference_mode()
def score_bare(peer: Bare, x: Tensor, n_draws: int) -> Tensor:
    """log p(x|z), but for its constant, of the mean draw."""
    noise = torch.randn(n_draws, 1, peer.n_components, dtype=x.dtype, device=x.device)
    scale = torch.ones_like(x[0])
    parts = []
    for some in x.split(peer.n_rows):
        loc, log_scale = peer.encoder(some).chunk(2, 1)
        sd = log_scale.exp()
        log_px = [
            (some - peer.decoder(loc + sd * draws)).mul_(scale).square_().sum(-1)
            for draws in noise.split(max(1, peer.n_rows // len(some)))
        ]
        parts.append(torch.cat(log_px).mean(0))
    return torch.cat(parts).cpu()


def peak_of(what: str, size: Size, n_rows: int, device: torch.device, n_threads: int) -> float:
    """MiB by which this fresh process grows when our model does this."""
    torch.set_num_threads(n_threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    work = contests(size, n_rows, device)[what]["skvae"]
    # What has been freed is filled, so that nothing is taken from it.
    room = torch.zeros(int(2**20 * (peak_mib(device) - used_mib(device))), dtype=torch.uint8)
    room = room.to(device).add_(1)
    before = peak_mib(device)
    work()
    return peak_mib(device) - before


def peak_mib(device: torch.device) -> float:
    """The most memory this process has had, of the GPU where it works on one.

    Not ru_maxrss where there is better: under Linux a spawned process inherits the peak of
    the one that spawned it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return status_mib("VmHWM") if STATUS.exists() else 1024 * peak_gib()


def used_mib(device: torch.device) -> float:
    """The memory this process has now; its peak where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return status_mib("VmRSS") if STATUS.exists() else peak_mib(device)


STATUS = Path("/proc/self/status")


# ------------------------------------------------------------------------------- import

IMPORTED_BEFORE = "import torch, sklearn.base, sklearn.pipeline"

IMPORT = f"""
import sys, time
start = time.perf_counter()
{IMPORTED_BEFORE}
middle, n_before = time.perf_counter(), len(sys.modules)
import skvae
print(middle - start, time.perf_counter() - middle, len(sys.modules) - n_before)
"""


def imports(arguments: argparse.Namespace) -> Table:
    """A process for each repeat; the first one, which may read from the disk, is dropped."""
    found = []
    for _ in range(1 + arguments.repeats):
        answer = subprocess.run(
            [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
        )
        found.append([float(number) for number in answer.stdout.split()])
    before, ours, n_modules = zip(*found[1:], strict=True)
    return Table(
        "Import",
        f"Files in the system's cache; medians of {arguments.repeats} processes, with the range.",
        ["what", "ms", "range", "modules"],
        [
            [f"`{IMPORTED_BEFORE}`", *milliseconds(before), ""],
            ["`import skvae` after it", *milliseconds(ours), f"{n_modules[0]:.0f}"],
        ],
        1,
    )


def milliseconds(seconds: Sequence[float]) -> list[str]:
    return [
        f"{1e3 * median(seconds):.0f}",
        f"{1e3 * min(seconds):.0f} to {1e3 * max(seconds):.0f}",
    ]


# -------------------------------------------------------------------------- measurement


def in_turns(work: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Each measures itself; after a turn that does not count, A B C A B C ..."""
    turns: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(1 + repeats):
        for name, measure in work.items():
            seconds = measure()
            if turn:
                turns[name].append(seconds)
    return turns


def comparison(
    size: str, turns: Mapping[str, Sequence[float]], unit: float, form: str
) -> list[list[str]]:
    """A row for each, compared with the first."""
    first = next(iter(turns.values()))
    return [
        [
            size,
            what,
            f"{unit * median(found):{form}}",
            f"{median(found) / median(first):.3f}",
            spread(b / a for a, b in zip(first, found, strict=True)),
        ]
        for what, found in turns.items()
    ]


def spread(ratios: Iterator[float]) -> str:
    found = list(ratios)
    return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def seconds_of(work: Work) -> float:
    """By the wall, a GPU's work included."""
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_a_call(work: Work) -> float:
    """Of work that is too short for a single look at the clock."""
    n = 1
    while (seconds := seconds_of(partial(repeat, work, n))) < 0.05:
        n *= 2
    return seconds / n


def repeat(work: Work, n: int) -> None:
    for _ in range(n):
        work()


def seconds_a_model(work: Work, n_models: int) -> float:
    return seconds_a_call(work) / n_models


# --------------------------------------------------------------------------------- data


def rows_of(name: str, size: Size, arguments: argparse.Namespace) -> Rows:
    """Rows of that size, a fifth more of them to hold out where they are made here.

    Whole numbers get uniform noise, without which they have no density and a bound no limit.
    """
    random = np.random.default_rng(SEED)
    if name == "digits":
        X = load_digits().data
        X = X + random.random(X.shape)
    elif name == "image" and arguments.data is not None:
        with np.load(arguments.data / "mnist.npz", allow_pickle=False) as file:
            X = file["X_train"].reshape(-1, size.n_columns)
        X = X + random.random(X.shape, dtype=np.float32)
    else:
        X = curved(random, size.n_rows + size.n_rows // 5, size.n_columns)
    X = X[random.permutation(len(X))][: size.n_rows + size.n_rows // 2]
    scaler = StandardScaler().fit(X[: size.n_rows])
    X = scaler.transform(X).astype(np.float32)
    return Rows(X[: size.n_rows], X[size.n_rows :])


def curved(random: np.random.Generator, n_rows: int, n_columns: int) -> np.ndarray:
    """x = tanh(z A) B + 0.3 e, with z of 5 columns and 40 bends; all else standard normal."""
    z = random.standard_normal((n_rows, 5))
    bends = np.tanh(z @ random.standard_normal((5, 40)))
    X = bends @ random.standard_normal((40, n_columns)) / np.sqrt(40)
    return X + 0.3 * random.standard_normal(X.shape)


# ------------------------------------------------------------------------------ the run


def how(arguments: argparse.Namespace) -> str:
    return f"{counted(arguments.repeats, 'turn')}, medians."


def describe(arguments: argparse.Namespace) -> str:
    """What it was run on."""
    device = str(arguments.device)
    if arguments.device.type == "cuda":
        device += f" ({torch.cuda.get_device_name(arguments.device)})"
    sizes = "; ".join(
        f"{name} {size.n_columns}-{'-'.join(map(str, size.hidden_layer_sizes))}-"
        f"{size.n_components}, batch {size.batch_size}"
        for name, size in SIZES.items()
    )
    image = "MNIST" if arguments.data is not None else "made like it"
    return (
        "# Speed\n\nWritten by `make speed`; the protocol is in `benchmarks/speed.py`. "
        f"torch {torch.__version__}, {device}, {counted(arguments.threads, 'thread')} "
        f"of torch, {cores()}. Sizes: {sizes}. Data: the "
        "digits of scikit-learn with uniform noise; for tabular, x = tanh(z A) B + 0.3 e with 5 "
        f"normal factors and random A and B; image: {image}. All columns standardised.\n"
    )


def tables(arguments: argparse.Namespace) -> Iterator[Table]:
    """Of the parts asked for, as they are ready."""
    sizes = {name: SIZES[name] for name in arguments.sizes}
    if arguments.device.type == "cuda" and "image" in sizes:
        sizes["image"] = sizes["image"]._replace(batch_size=256)
    parts: dict[str, Callable[[], Table]] = {
        "steps": lambda: steps(sizes, arguments),
        "bound": lambda: time_to_bound(sizes, arguments),
        "busy": lambda: busy(SIZES["digits"], arguments),
        "inference": lambda: inference(sizes, arguments),
        "import": lambda: imports(arguments),
    }
    if "steps" in arguments.parts:
        yield expectation(sizes, arguments.device)
    for part in arguments.parts:
        yield parts[part]()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    parts = ["steps", "bound", "busy", "inference", "import"]
    add("--parts", nargs="+", choices=parts, default=parts, help="default: all")
    add("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="default: all")
    add("--repeats", type=int, default=5, help="turns that count (default: 5)")
    add("--threads", type=int, default=1, help="of torch (default: 1)")
    add("--device", type=torch.device, default=torch.device("cpu"), help='"cpu", "cuda"')
    add("--data", type=Path, help="folder with mnist.npz for the image size (default: made)")
    add("--n-numbers", type=int, default=2**24, help="in the X of inference (default: 2^24)")
    add("--output", type=Path, help="file for the Markdown that is printed")
    arguments = parser.parse_args()
    if arguments.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: torch sees no GPU here")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    # With so few epochs the fits are meant to end early.
    warnings.simplefilter("ignore", ConvergenceWarning)
    texts = [describe(arguments)]
    print(texts[0], flush=True)
    for table in tables(arguments):
        texts.append(str(table))
        print(table, flush=True)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text("\n".join(texts), encoding="utf-8")


if __name__ == "__main__":
    main()

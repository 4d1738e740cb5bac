"""The variational autoencoders people fit to tables today, behind one protocol.

    peer = PEERS["pythae"](n_components=8, random_state=0).fit(X_train)
    peer.transform(X_test)  # means of q(z|x)
    peer.bound(X_test)  # mean ELBO, nats a row

What is not given is the package's own default, activation, dropout and validation rows
included. What else there is to know:

skorch
    has no VAE of its own. It trains a plain one written here, with the hidden layers and the
    activation of VAETransformer and the squared error. Its optimiser by default is plain
    gradient descent at 0.01 for 10 epochs, with a fifth of the rows kept apart; nobody trains a
    VAE so, and here it is Adam at 0.001 for 100 epochs on all rows.
pythae
    has a decoder that ends in a sigmoid, for pixels. Given `hidden_layer_sizes` it gets the
    networks that skorch trains. It writes the model to disk at the end of a fit.
pyod
    has a KL divergence of weight zero (`capacity=0`): an autoencoder with noise. It scores the
    training rows at the end of a fit.
encdr
    needs Python 3.12. It keeps a fifth of the rows apart and looks at them after each epoch.

None learns a variance of x given z. The bound takes the one that the loss implies: 1 for half
the squared error, 1/2 for the squared error of encdr, and 1 for pyod, whose loss implies none.
pyod and encdr standardise columns inside; their variance is in these units.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

HIDDEN_LAYER_SIZES = (128, 128)  # of skorch, which has no default: those of VAETransformer


@dataclass
class Peer:
    """A VAE of another package in the words of this one; None is the package's default.

    A subclass says how to fit, encode and decode; features and bound are the same for all.
    """

    n_components: int
    hidden_layer_sizes: tuple[int, ...] | None = None
    learning_rate_init: float | None = None
    batch_size: int | None = None
    max_iter: int | None = None
    random_state: int = 0
    device: str = "cpu"

    module: ClassVar[str]
    python: ClassVar[tuple[int, int]] = (3, 11)  # the oldest that has it

    def __post_init__(self) -> None:
        importlib.import_module(self.module)  # the time of a fit has no import in it

    def fit(self, X: np.ndarray) -> Peer:
        """Train on standardised rows (N, D)."""
        raise NotImplementedError

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), both (N, Z)."""
        raise NotImplementedError

    def _decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, D) and variance (D,) or () of p(x|z), in the units of X."""
        raise NotImplementedError

    @torch.no_grad()
    def transform(self, X: np.ndarray) -> np.ndarray:
        """The means of q(z|x), (N, Z)."""
        loc, _ = self._encode(self._tensor(X))
        return loc.cpu().numpy()

    @torch.no_grad()
    def bound(self, X: np.ndarray, n_draws: int = 32) -> float:
        """E_q[log p(x|z)] - KL[q(z|x) || p(z)], the mean over rows, in nats."""
        x = self._tensor(X)
        generator = torch.Generator(x.device).manual_seed(self.random_state)
        loc, log_variance = self._encode(x)
        kl = 0.5 * (loc**2 + log_variance.exp() - 1 - log_variance).sum(1)
        log_px = torch.zeros_like(kl)
        for _ in range(n_draws):
            noise = torch.randn(loc.shape, generator=generator, device=x.device)
            mean, variance = self._decode(loc + noise * (log_variance / 2).exp())
            log_density = (x - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi)
            log_px -= 0.5 * log_density.sum(1) / n_draws
        return float((log_px - kl).double().mean())

    def _tensor(self, X: np.ndarray) -> Tensor:
        return torch.as_tensor(X, dtype=torch.float32, device=self.device)


class Encoder(nn.Module):
    """Mean and log variance of q(z|x) from a perceptron."""

    def __init__(self, n_columns: int, n_components: int, hidden_layer_sizes: tuple[int, ...]):
        super().__init__()
        self.hidden = perceptron((n_columns, *hidden_layer_sizes))
        self.loc = nn.Linear(hidden_layer_sizes[-1], n_components)
        self.log_variance = nn.Linear(hidden_layer_sizes[-1], n_components)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x)
        return self.loc(hidden), self.log_variance(hidden)


class Decoder(nn.Sequential):
    """Mean of p(x|z): the encoder in reverse."""

    def __init__(self, n_columns: int, n_components: int, hidden_layer_sizes: tuple[int, ...]):
        sizes = hidden_layer_sizes[::-1]
        super().__init__(perceptron((n_components, *sizes)), nn.Linear(sizes[-1], n_columns))


def perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers, each with an activation behind it."""
    layers = ((nn.Linear(*pair), nn.SiLU()) for pair in pairwise(sizes))
    return nn.Sequential(*chain.from_iterable(layers))


class PlainVAE(nn.Module):
    """What one writes to train a VAE with skorch."""

    def __init__(self, n_columns: int, n_components: int, hidden_layer_sizes: tuple[int, ...]):
        super().__init__()
        self.encoder = Encoder(n_columns, n_components, hidden_layer_sizes)
        self.decoder = Decoder(n_columns, n_components, hidden_layer_sizes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc, log_variance = self.encoder(x)
        z = loc + (log_variance / 2).exp() * torch.randn_like(loc)
        return self.decoder(z), loc, log_variance


class NegativeELBO(nn.Module):
    """Minus the bound of a `PlainVAE`, without its constant, averaged over rows."""

    def __init__(self, beta: float = 1.0):
        super().__init__()
        self.beta = beta  # weight of the KL divergence

    def forward(self, output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        mean, loc, log_variance = output
        squared_error = ((x - mean) ** 2).sum(1)
        kl = (loc**2 + log_variance.exp() - 1 - log_variance).sum(1)
        return 0.5 * (squared_error + self.beta * kl).mean()


@dataclass
class SkorchVAE(Peer):
    beta: float = 1.0

    module = "skorch"

    def fit(self, X: np.ndarray) -> Peer:
        from skorch import NeuralNet

        torch.manual_seed(self.random_state)
        x = np.asarray(X, np.float32)
        net = NeuralNet(
            PlainVAE,
            NegativeELBO,
            module__n_columns=x.shape[1],
            module__n_components=self.n_components,
            module__hidden_layer_sizes=self.hidden_layer_sizes or HIDDEN_LAYER_SIZES,
            criterion__beta=self.beta,
            optimizer=torch.optim.Adam,
            lr=self.learning_rate_init or 1e-3,
            max_epochs=self.max_iter or 100,
            iterator_train__shuffle=True,
            train_split=None,
            device=self.device,
            verbose=0,
            **given(batch_size=self.batch_size),
        )
        self.vae_ = net.fit(x, x).module_.eval()
        return self

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae_.encoder(x)

    def _decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae_.decoder(z), z.new_ones(())


class PythaeVAE(Peer):
    module = "pythae.pipelines"

    def fit(self, X: np.ndarray) -> Peer:
        from pythae.models import VAE, VAEConfig
        from pythae.pipelines import TrainingPipeline
        from pythae.trainers import BaseTrainerConfig

        torch.manual_seed(self.random_state)
        n_columns = X.shape[1]
        config = VAEConfig(input_dim=(n_columns,), latent_dim=self.n_components)
        if self.hidden_layer_sizes is None:
            vae = VAE(config)
        else:
            networks = pythae_networks(n_columns, self.n_components, self.hidden_layer_sizes)
            vae = VAE(config, *networks)
        with tempfile.TemporaryDirectory() as folder, silence():
            trainer = BaseTrainerConfig(
                output_dir=folder,
                seed=self.random_state,
                no_cuda=self.device == "cpu",
                **given(
                    learning_rate=self.learning_rate_init,
                    per_device_train_batch_size=self.batch_size,
                    num_epochs=self.max_iter,
                ),
            )
            TrainingPipeline(model=vae, training_config=trainer)(np.asarray(X, np.float32))
        self.vae_ = vae.eval()
        return self

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output = self.vae_.encoder(x)
        return output.embedding, output.log_covariance

    def _decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae_.decoder(z).reconstruction, z.new_ones(())


def pythae_networks(
    n_columns: int, n_components: int, hidden_layer_sizes: tuple[int, ...]
) -> tuple[nn.Module, nn.Module]:
    """`Encoder` and `Decoder` as pythae wants them; its base classes may not be installed."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class PythaeEncoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = Encoder(n_columns, n_components, hidden_layer_sizes)

        def forward(self, x: Tensor) -> ModelOutput:
            loc, log_variance = self.network(x)
            return ModelOutput(embedding=loc, log_covariance=log_variance)

    class PythaeDecoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = Decoder(n_columns, n_components, hidden_layer_sizes)

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.network(z))

    return PythaeEncoder(), PythaeDecoder()


class PyodVAE(Peer):
    module = "pyod.models.vae"

    def fit(self, X: np.ndarray) -> Peer:
        from pyod.models.vae import VAE

        hidden = self.hidden_layer_sizes
        detector = VAE(
            latent_dim=self.n_components,
            random_state=self.random_state,
            device=torch.device(self.device),
            verbose=0,
            **given(
                encoder_neuron_list=hidden and list(hidden),
                decoder_neuron_list=hidden and list(hidden[::-1]),
                lr=self.learning_rate_init,
                batch_size=self.batch_size,
                epoch_num=self.max_iter,
            ),
        )
        self.detector_ = detector.fit(X)
        self.vae_ = detector.model.eval()
        self.mean_ = self._tensor(detector.X_mean)
        self.scale_ = self._tensor(detector.X_std + 1e-8)  # as its data loader does
        return self

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_variance = self.vae_.encode((x - self.mean_) / self.scale_)
        return loc, log_variance.clamp(*self.detector_.logvar_clip_)

    def _decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae_.decode(z) * self.scale_ + self.mean_, self.scale_**2


class EncdrVAE(Peer):
    module = "encdr"
    python = 3, 12

    def fit(self, X: np.ndarray) -> Peer:
        from encdr.encdr import VENCDR

        hidden = self.hidden_layer_sizes
        model = VENCDR(
            latent_dim=self.n_components,
            random_state=self.random_state,
            trainer_kwargs={
                "accelerator": "cpu" if self.device == "cpu" else "gpu",
                "enable_progress_bar": False,
                "enable_model_summary": False,
            },
            **given(
                hidden_dims=hidden and list(hidden),
                learning_rate=self.learning_rate_init,
                batch_size=self.batch_size,
                max_epochs=self.max_iter,
            ),
        )
        with silence():
            model.fit(X)
        self.vae_ = model.model_.eval().to(self.device)
        self.mean_ = self._tensor(model.scaler_.mean_)
        self.scale_ = self._tensor(model.scaler_.scale_)
        return self

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae_.encode((x - self.mean_) / self.scale_)

    def _decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae_.decode(z) * self.scale_ + self.mean_, self.scale_**2 / 2


PEERS: dict[str, type[Peer]] = {
    "skorch": SkorchVAE,
    "pythae": PythaeVAE,
    "pyod": PyodVAE,
    "encdr": EncdrVAE,
}


class Availability(NamedTuple):
    """Names of the peers that can be imported; of the others, why they cannot."""

    names: list[str]
    missing: dict[str, str]


def available() -> Availability:
    names, missing = [], {}
    for name, peer in PEERS.items():
        try:
            importlib.import_module(peer.module)
            names.append(name)
        except Exception as error:  # whatever an old package trips over, it is the reason
            missing[name] = f"{type(error).__name__}: {error}"
            if sys.version_info < peer.python:
                missing[name] = f"needs Python {'.'.join(map(str, peer.python))}"
    return Availability(names, missing)


def given(**parameters: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in parameters.items() if value is not None}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """No progress bars, which go to stderr, and no reports."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(previous)

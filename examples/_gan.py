"""A small generative adversarial network, with which `claims.py` compares the autoencoders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

SLOPE = 0.2  # of the leaky rectifiers, left of zero
AVERAGING = 0.999  # of the weights that samples are drawn with, over the steps


class GAN:
    """Generator and discriminator, with the non-saturating loss.

    The generator gives standardised rows, and noise of the standard deviation ``jitter``
    is added in the units of X: what was done to the data is done to the generated rows.
    The discriminator pays ``penalty / 2`` times its squared gradient at real rows (R1;
    Mescheder, Geiger and Nowozin, ICML 2018), without which it soon knows the few rows by
    heart. Samples come from a running average of the generator's weights.
    """

    def __init__(
        self,
        n_components: int = 64,
        hidden_layer_sizes: Sequence[int] = (128, 128),
        *,
        n_steps: int = 10_000,
        batch_size: int = 128,
        learning_rate: float = 2e-4,
        penalty: float = 1.0,
        jitter: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = tuple(hidden_layer_sizes)
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.penalty = penalty
        self.jitter = jitter
        self.seed = seed

    def fit(self, X: np.ndarray) -> GAN:
        """Train on all rows of X."""
        random = torch.Generator().manual_seed(self.seed)
        self._loc, self._scale = X.mean(0), X.std(0)
        self._noise = torch.as_tensor(self.jitter / self._scale, dtype=torch.float32)
        x = torch.as_tensor((X - self._loc) / self._scale, dtype=torch.float32)
        hidden, n_features = self.hidden_layer_sizes, X.shape[1]
        generator = perceptron((self.n_components, *hidden, n_features), random)
        discriminator = perceptron((n_features, *hidden, 1), random)
        self._average = torch.optim.swa_utils.AveragedModel(
            generator, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGING)
        )
        climb_generator = self._adam(generator)
        climb_discriminator = self._adam(discriminator)
        for _ in range(self.n_steps):
            rows = torch.randint(len(x), (self.batch_size,), generator=random)
            real = x[rows].requires_grad_()
            fake = self._draw(generator, self.batch_size, random)

            says_real, says_fake = discriminator(torch.cat((real, fake.detach()))).chunk(2)
            (slope,) = torch.autograd.grad(says_real.sum(), real, create_graph=True)
            loss = softplus(-says_real).mean() + softplus(says_fake).mean()
            loss = loss + self.penalty / 2 * slope.square().sum(1).mean()
            descend(climb_discriminator, loss)

            descend(climb_generator, softplus(-discriminator(fake)).mean())
            self._average.update_parameters(generator)
        return self

    def sample(self, n_samples: int, *, seed: int) -> np.ndarray:
        """Rows in the units of X."""
        with torch.no_grad():
            random = torch.Generator().manual_seed(seed)
            x = self._draw(self._average, n_samples, random)
        return x.double().numpy() * self._scale + self._loc

    def _draw(self, generator: nn.Module, n: int, random: torch.Generator) -> Tensor:
        x = generator(torch.randn(n, self.n_components, generator=random))
        return x + self._noise * torch.randn(x.shape, generator=random)

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        # The betas of DCGAN (Radford, Metz and Chintala, ICLR 2016), as most GANs use.
        return torch.optim.Adam(
            network.parameters(), self.learning_rate, betas=(0.5, 0.999), fused=True
        )


def descend(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def perceptron(sizes: Sequence[int], random: torch.Generator) -> nn.Sequential:
    """Layers of these sizes, with weights from ``random`` alone."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        linear = nn.utils.skip_init(nn.Linear, n_in, n_out)
        nn.init.kaiming_uniform_(linear.weight, SLOPE, generator=random)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers[:-1])

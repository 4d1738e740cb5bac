"""
Topics in counts of words
=========================

Documents are simulated from five known topics, so that it can be checked what a model finds of
them. A :class:`~skvae.VAETransformer` with a likelihood for counts is compared with
LatentDirichletAllocation, whose assumptions are those of the simulation, and with TruncatedSVD.
Then words come in bursts, as they do in real text: only a negative binomial likelihood expects
that. It describes such counts better; whether it also finds the topics better is another question.
"""

# %%
# Documents from known topics
# ---------------------------
# A topic is a distribution over words, a document a mixture of topics, its counts are Poisson.
# With bursts the rate of each word in each document is multiplied by a gamma variable of mean 1: a
# word that was used once is used again.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.decomposition import LatentDirichletAllocation, TruncatedSVD
from sklearn.linear_model import LinearRegression

from skvae import VAETransformer

n_documents, n_words, n_topics = 1500, 200, 5
rng = np.random.default_rng(0)
topics = rng.dirichlet(np.full(n_words, 0.1), size=n_topics)
shares = rng.dirichlet(np.full(n_topics, 0.3), size=n_documents)  # of the topics in a document
length = rng.lognormal(np.log(100), 0.5, size=(n_documents, 1))


def documents(burst):
    """Counts (n_documents, n_words); burst is the variance of the factor of a rate."""
    rate = length * (shares @ topics)
    if burst:
        rate = rate * rng.gamma(1 / burst, burst, size=rate.shape)
    return rng.poisson(rate).astype(float)


# %%
# What is found of the shares
# ---------------------------
# From the features of every model a linear regression predicts the shares of the topics in
# held-out documents. All have five components: four for the shares of five topics, one for the
# length of a document. The VAEs are given the length: with ``exposure="total"`` rates are relative
# to it.

models = {
    "LatentDirichletAllocation": LatentDirichletAllocation(n_topics, random_state=0),
    "VAE, negative binomial": VAETransformer(
        n_topics, likelihood="negative_binomial", exposure="total", random_state=0
    ),
    "VAE, Poisson": VAETransformer(
        n_topics, likelihood="poisson", exposure="total", random_state=0
    ),
    "TruncatedSVD": TruncatedSVD(n_topics, random_state=0),
}
bursts = [0.0, 0.5, 2.0]
fitted, held_out = slice(0, 1000), slice(1000, None)
recovered = {name: [] for name in models}
nats = {name: [] for name in models if name.startswith("VAE")}
for burst in bursts:
    X = documents(burst)
    for name, model in models.items():
        Z = model.fit(X[fitted]).transform(X)
        regression = LinearRegression().fit(Z[fitted], shares[fitted])
        recovered[name].append(regression.score(Z[held_out], shares[held_out]))
        if name in nats:
            nats[name].append(model.score(X[held_out]))

fig, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
looks = ["ks-.", "C0o-", "C0o:", "C1^--"]
for (name, of), look in zip(recovered.items(), looks, strict=True):
    ax.plot(bursts, of, look, label=name, markerfacecolor="white" if ":" in look else None)
ax.set(xlabel="variance of a word's bursts", ylabel="$R^2$ of the topics' shares", xticks=bursts)
ax.set_ylim(0, 1)
_ = ax.legend(frameon=False, loc="lower left")

# %%
# Do the counts look alike?
# -------------------------
# A likelihood can be checked by what it draws. The variance of a Poisson count is its mean; what
# is above that comes from differences between documents, and from bursts. Both models were last
# fitted to the documents with the strongest bursts.

fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True, layout="constrained")
for ax, name in zip(axes, ["VAE, Poisson", "VAE, negative binomial"], strict=True):
    drawn = models[name].sample(n_documents, random_state=1)
    for label, x, look in [("documents", X, "ks"), (f"samples of {name}", drawn, "C0o")]:
        is_used = x.mean(axis=0) > 0
        mean, variance = x.mean(axis=0)[is_used], x.var(axis=0)[is_used]
        ax.loglog(mean, variance / mean, look, ms=4, alpha=0.5, label=label)
    ax.axhline(1, color="0.6", ls=":")
    ax.set_xlabel("mean count of a word")
    ax.legend(frameon=False, loc="upper left")
_ = axes[0].set_ylabel("variance / mean")

# %%
# In nats the likelihoods of both VAEs can be compared: they are probabilities of the same counts.

gained = np.subtract(nats["VAE, negative binomial"], nats["VAE, Poisson"])
print(f"R2 with bursts of {', '.join(map(str, bursts))}:")
for name, of in recovered.items():
    print(f"  {name:26}", "  ".join(f"{r2:.2f}" for r2 in of))

best = {i: max(recovered, key=lambda name, i=i: recovered[name][i]) for i in (0, -1)}


def r2(i):
    """Of the best model, and of two more."""
    more = {"negative binomial VAE": "VAE, negative binomial", "TruncatedSVD": "TruncatedSVD"}
    behind = ", ".join(f"{short} {recovered[name][i]:.2f}" for short, name in more.items())
    return f"(R2 {recovered[best[i]][i]:.2f}; {behind})"


if best[0] == best[-1]:
    found = f"{best[0]} finds most of the topics' shares, without bursts\n{r2(0)}\nand "
    found += f"with the strongest {r2(-1)}"
else:
    found = f"without bursts {best[0]} finds most of the topics' shares\n{r2(0)},\nwith the "
    found += f"strongest {best[-1]} {r2(-1)}"
of_burst, of_poisson = (recovered[name][-1] for name in nats)
print(
    f"Finding: {found}.\nThere the negative binomial likelihood is {abs(gained[-1]):.0f} nats a "
    f"document {'above' if gained[-1] > 0 else 'below'} the Poisson. From its features R2 is "
    f"{of_burst:.2f},\nfrom those of the Poisson {of_poisson:.2f}."
)
plt.show()

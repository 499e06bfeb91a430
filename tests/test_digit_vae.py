"""The digits' VAE is the paper's: its sizes, its loss, its latents; and it trains by the suite's own loop."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from experiments.configuration.compose import compose
from experiments.configuration.validation import check
from experiments.runs.building import model_of, particles_of
from lightning_modules.elbo import bernoulli_negative_elbo, kl_divergence
from lightning_modules.errors import InputError
from lightning_modules.vae.digit_vae import DigitVAE
from tests.small_models import train

SMALL = ("data.n_particles=40", "encoder.width=16", "decoder.width=16", "batch_size=16", "precision=float32")


SIMULATED = ("data.box_px=16", "data.shift_px=0.5")


def digit_vae(*overrides: str, exp: str = "mnist_vae") -> DigitVAE:
    config = check(compose(f"+exp={exp}", *overrides))
    model = model_of(config, particles_of(config))
    model.prepare()
    return model


def shapes(network: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in network.parameters() if p.dim() == 2]


def test_the_networks_have_the_papers_sizes() -> None:
    model = digit_vae()
    assert shapes(model.latents.encoder) == [(256, 64), (256, 256), (256, 256), (4, 256)]
    assert shapes(model.decoder) == [(256, 2), (256, 256), (64, 256)]


def test_networks_are_plain_relu_layers() -> None:
    model = digit_vae(*SMALL)
    observed, z = model.observe(torch.arange(5)), torch.randn(5, 2)
    linear = [part for part in model.latents.encoder.modules() if isinstance(part, torch.nn.Linear)]
    h = observed.x
    for layer in linear[:-1]:
        h = layer(h).relu()
    mu, logvar = model.infer(observed)
    assert torch.allclose(torch.cat([mu, logvar], dim=1), linear[-1](h), atol=1e-6)
    linear = [part for part in model.decoder.modules() if isinstance(part, torch.nn.Linear)]
    assert torch.allclose(model.render(observed, z), linear[2](linear[1](linear[0](z).relu()).relu()), atol=1e-6)
    assert torch.allclose(model.decode(z), model.render(observed, z).sigmoid(), atol=1e-6)


def test_the_loss_is_the_summed_cross_entropy_and_the_kl() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, mu, logvar = (torch.randn(7, n, generator=generator) for n in (30, 2, 2))
    y = torch.rand(7, 30, generator=generator)
    found = bernoulli_negative_elbo(logits, y, mu, logvar, beta=0.5)
    each = binary_cross_entropy(logits.sigmoid(), y, reduction="none").sum(dim=1)
    assert float(found.reconstruction) == pytest.approx(float(each.mean()), rel=1e-6)
    assert float(found.kl) == pytest.approx(float(kl_divergence(mu, logvar).mean()), rel=1e-6)
    assert float(found.total) == pytest.approx(float(each.mean() + 0.5 * found.kl), rel=1e-6)


def test_the_loss_of_a_decoder_that_knows_nothing_is_known() -> None:
    y = torch.rand(3, 50)
    found = bernoulli_negative_elbo(torch.zeros(3, 50), y, torch.zeros(3, 2), torch.zeros(3, 2), beta=1.0)
    assert float(found.total) == pytest.approx(50 * math.log(2), rel=1e-6)


def test_a_saturated_pixel_costs_what_its_logit_says() -> None:
    """Where the sigmoid rounds to 1 the cross-entropy is still finite, and has a gradient."""
    logits = torch.tensor([[40.0]], requires_grad=True)
    found = bernoulli_negative_elbo(logits, torch.zeros(1, 1), torch.zeros(1, 2), torch.zeros(1, 2), beta=1.0)
    found.total.backward()
    assert float(found.reconstruction.detach()) == 40 and logits.grad is not None and float(logits.grad) == 1


@pytest.mark.parametrize("exp", ["mnist_vae", "mnist_vlt", "mnist_evil_twin_permuted", "mnist_evil_twin_noise"])
def test_training_lowers_the_loss(exp: str) -> None:
    model = digit_vae(*SMALL, exp=exp)
    index, eps = torch.arange(40), torch.zeros(40, 2)
    before = float(model.elbo(model.observe(index), eps, 1.0).total)
    train(model, max_epochs=12, batch_size=8)
    assert float(model.elbo(model.observe(index), eps, 1.0).total) < 0.8 * before


def test_a_table_moves_with_the_networks_own_rate_from_its_zero_start() -> None:
    model = digit_vae(*SMALL, exp="mnist_vlt")
    mu, logvar = model.encode()
    assert not mu.any() and (logvar == -8).all()
    adam, of_table = model.configure_optimizers()
    assert adam.defaults["lr"] == of_table.defaults["lr"] == 0.01
    assert isinstance(of_table, torch.optim.SparseAdam)
    train(model.train(), max_epochs=1, batch_size=16)
    assert (model.encode().mu.abs().amax(dim=1) > 0).all()


def test_the_same_seed_gives_the_same_decoder_with_and_without_an_encoder() -> None:
    encoder, table = (digit_vae(*SMALL, exp=exp).decoder.state_dict() for exp in ("mnist_vae", "mnist_vlt"))
    assert all(encoder[key].equal(table[key]) for key in table)


def test_the_latents_are_those_of_what_the_encoder_sees() -> None:
    model = digit_vae(*SMALL, exp="mnist_evil_twin_permuted")
    partner = model.encoder_input.partner
    own = digit_vae(*SMALL)
    own.load_state_dict(model.state_dict())
    assert np.allclose(model.encode().mu, own.encode().mu[partner], atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("data=digits", "model=cryo_vae"), "expected Particles for model CryoVAE"),
        (("data=digits", "decoder=cryodrgn"), "expected MlpDecoder for model DigitVAE"),
        (("model=digit_vae", *SIMULATED), "expected Digits for model DigitVAE"),
        (("decoder=mlp", *SIMULATED), "expected SliceDecoder for model CryoVAE"),
    ],
)
def test_parts_that_do_not_go_together_are_named(tmp_path, overrides: tuple[str, ...], named: str) -> None:
    config = check(compose(*overrides, "data.n_particles=8", f"paths.cache={tmp_path}"))
    with pytest.raises(InputError, match=named):
        model_of(config, particles_of(config))

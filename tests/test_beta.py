"""The weight of the KL is cryoDRGN's, at every particle of a training."""

from pathlib import Path

import pytest
from cryodrgn.beta_schedule import get_beta_schedule

from lightning_modules.errors import InputError
from lightning_modules.vae.beta_schedule import beta_schedule
from tests.small_models import cryo_vae, particles_in, train

SEEN = (0, 8, 1_000, 199_999, 200_000, 500_000, 800_001, 1_000_000, 3_000_000, 5_000_000, 10_000_000)


@pytest.mark.parametrize("zdim", [1, 2, 8])
def test_default_is_one_over_zdim(zdim: int) -> None:
    beta = beta_schedule(None, None, zdim)
    assert [beta(n) for n in SEEN] == [1 / zdim] * len(SEEN)


@pytest.mark.parametrize("beta", [0.0, 0.5, "0.5", 1, "1e-2"])
def test_a_number_is_constant(beta: float | str) -> None:
    assert {beta_schedule(beta, None, 8)(n) for n in SEEN} == {float(beta)}


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_schedules_equal_cryodrgns(name: str) -> None:
    ours, theirs = beta_schedule(name, 1.0, 8), get_beta_schedule(name)
    assert [ours(n) for n in SEEN] == [theirs(n) for n in SEEN]
    assert ours(0) != ours(10_000_000)


def test_schedule_is_asked_with_the_particles_seen_so_far_as_in_cryodrgn(tmp_path: Path) -> None:
    asked: list[int] = []
    model = cryo_vae(particles_in(tmp_path, n=10))
    model.beta = lambda seen: asked.append(seen) or 0.25
    train(model, max_epochs=2, batch_size=4, batches_per_block=2)
    # global_it of train_vae: the particles of the current minibatch are already counted.
    assert asked == [4, 8, 10, 14, 18, 20]


def test_unknown_schedules_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="beta=e: expected a number, null, or one of a, b, c, d"):
        beta_schedule("e", 1.0, 8)


def test_a_schedule_without_kl_control_is_refused() -> None:
    with pytest.raises(InputError, match=r"beta=a: .*set beta_control"):
        beta_schedule("a", None, 8)

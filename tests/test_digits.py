"""Digits: what the files say, what the model sees, and nothing that a particle has and a picture has not."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_modules.encoder_inputs.altered import ShiftedInput
from lightning_modules.encoder_inputs.encoder_input import IdentityInput
from lightning_modules.encoder_inputs.twins import NoiseTwin, PermutedTwin
from lightning_modules.errors import InputError
from lightning_modules.particles.digits import Digits, Mnist, SklearnDigits


def prepared(encoder_input, digits: Digits, seed: int = 0):
    encoder_input.prepare(digits, digits.formation(), seed)
    return encoder_input


def seen(encoder_input, digits: Digits) -> torch.Tensor:
    index = torch.arange(len(digits))
    return encoder_input(digits.images, torch.zeros(len(digits), 2), None, index)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return SklearnDigits(n_particles=50).load()


def test_the_embedded_digits_are_scikit_learns() -> None:
    found, theirs = SklearnDigits().load(), load_digits()
    assert (len(found), found.box_px, found.images.shape) == (1797, 8, (1797, 64))
    assert found.images.dtype == torch.float32 and found.images.min() == 0 and found.images.max() == 1
    assert np.array_equal(found.raw(np.arange(1797)).numpy() * 16, theirs.images)
    assert np.array_equal(found.labels["state"], theirs.target)


def test_only_the_first_so_many(digits: Digits) -> None:
    assert len(digits) == len(digits.labels["state"]) == 50
    assert digits.images.equal(SklearnDigits().load().images[:50])


def test_more_images_than_there_are_is_an_error() -> None:
    with pytest.raises(InputError, match=r"data\.n_particles=1798: there are 1797 images"):
        SklearnDigits(n_particles=1798).load()


def test_the_encoder_sees_the_image_itself(digits: Digits) -> None:
    assert seen(prepared(IdentityInput(), digits), digits).equal(digits.images)


def test_a_shift_rolls_to_the_right_and_wraps(digits: Digits) -> None:
    rolled = seen(prepared(ShiftedInput(dx_px=1), digits), digits).view(-1, 8, 8)
    pictures = digits.raw(np.arange(50))
    assert rolled[:, :, 1:].equal(pictures[:, :, :-1])
    assert rolled[:, :, 0].equal(pictures[:, :, -1])


def test_a_permuted_twin_is_another_image_of_the_set(digits: Digits) -> None:
    twin = prepared(PermutedTwin(), digits)
    assert not (twin.partner == torch.arange(50)).any()
    assert sorted(twin.partner.tolist()) == list(range(50))
    assert seen(twin, digits).equal(digits.images[twin.partner])


def test_noise_twins_have_the_moments_of_the_data_and_stay_the_same() -> None:
    digits = SklearnDigits().load()
    noise = seen(prepared(NoiseTwin(), digits), digits)
    assert float(noise.mean()) == pytest.approx(float(digits.images.mean()), abs=0.01)
    assert float(noise.std()) == pytest.approx(float(digits.images.std()), rel=0.01)
    assert noise.equal(seen(prepared(NoiseTwin(), digits), digits))
    assert not noise.equal(seen(prepared(NoiseTwin(), digits, seed=1), digits))


def test_mnists_test_images(shared_data) -> None:
    found = Mnist(str(shared_data / "mnist")).load()
    assert (len(found), found.box_px, found.images.shape) == (10_000, 28, (10_000, 784))
    assert found.images.min() == 0 and found.images.max() == 1
    # The published set begins with a seven and has 980 zeros and 1,135 ones.
    assert found.labels["state"][:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(found.labels["state"]).tolist()[:2] == [980, 1135]

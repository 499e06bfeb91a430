"""Digits told apart and digits read: known answers."""

import numpy as np
import pytest

from experiments.metrics.digits import APART, MIXED, DigitReader, accuracy_of_digits
from experiments.metrics.latents import knn_class_accuracy
from lightning_modules.particles.digits import SklearnDigits

DIGIT = np.repeat(np.arange(10), 30)
RNG = np.random.default_rng(0)
CLUSTERS = np.column_stack([DIGIT * 10.0, np.zeros(300)]) + RNG.standard_normal((300, 2))


@pytest.fixture(scope="module")
def digits():
    return SklearnDigits().load()


@pytest.fixture(scope="module")
def reader(digits):
    return DigitReader(digits.images, digits.labels["state"])


def test_clusters_apart_are_told_apart():
    assert accuracy_of_digits(CLUSTERS, DIGIT, APART) == accuracy_of_digits(CLUSTERS, DIGIT, MIXED) == 1


def test_digits_that_share_a_place_are_not():
    mixed = np.where(np.isin(DIGIT, MIXED), 4, DIGIT)
    z = np.column_stack([mixed * 10.0, np.zeros(300)]) + RNG.standard_normal((300, 2))
    assert accuracy_of_digits(z, DIGIT, APART) == 1
    assert accuracy_of_digits(z, DIGIT, MIXED) == pytest.approx(0.25, abs=0.15)


def test_collapsed_latents_tell_nothing():
    assert accuracy_of_digits(np.zeros((300, 2)), DIGIT, APART) == pytest.approx(0.1, abs=0.1)


def test_every_digit_counts_alike_however_often_it_is_there():
    kept = np.r_[0:30, 30:32, 60:300]  # two ones, thirty zeros; the ones' neighbours are others
    zeros, ones = (accuracy_of_digits(CLUSTERS[kept], DIGIT[kept], of) for of in ((0,), (1,)))
    assert (zeros, ones) == (1, 0)
    assert accuracy_of_digits(CLUSTERS[kept], DIGIT[kept], APART) == 0.5


def test_over_all_digits_it_is_the_class_accuracy():
    z = CLUSTERS + 6 * RNG.standard_normal((300, 2))
    assert accuracy_of_digits(z, DIGIT, tuple(range(10))) == pytest.approx(knn_class_accuracy(z, DIGIT))


def test_a_digit_that_is_not_there_has_no_accuracy():
    assert accuracy_of_digits(CLUSTERS[:270], DIGIT[:270], MIXED) is None


def test_the_reader_reads_the_images(digits, reader):
    assert reader.accuracy(reader.read(digits.images)) > 0.98


def test_the_reader_never_reads_an_image_that_it_was_trained_on():
    """With labels of chance, knowing an image by heart would give 1."""
    images, digit = RNG.random((400, 64)), RNG.integers(0, 10, 400)
    reader = DigitReader(images, digit)
    assert reader.accuracy(reader.read(images)) < 0.25


def test_the_reader_is_always_the_same(digits, reader):
    again = DigitReader(digits.images, digits.labels["state"])
    noisy = digits.images.numpy() + 0.3 * np.random.default_rng(1).standard_normal(digits.images.shape)
    assert np.array_equal(reader.read(noisy), again.read(noisy))


def test_what_has_no_picture_left_is_read_by_chance(digits, reader):
    grey = np.full(digits.images.shape, 0.5, np.float32)
    assert reader.accuracy(reader.read(grey)) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_few_images_have_a_reader_too(digits, n):
    few = DigitReader(digits.images[:n], digits.labels["state"][:n])
    assert np.isin(few.read(digits.images[:n]), digits.labels["state"][:n]).all()

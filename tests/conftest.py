"""Fixtures that every test file may use."""

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a caller say why tests may be skipped: a library that went missing must not pass for a green suite."""
    parser.addoption(
        "--expected-skips", metavar="REGEX", help="a test that is skipped for a reason that this does not match fails"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Judge a skipped test."""
    return _judged((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Judge a skipped file."""
    return _judged((yield), collector.config)


def _judged(report: Any, config: pytest.Config) -> Any:
    expected = config.getoption("--expected-skips")
    if expected is not None and report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not re.search(expected, why):
            report.outcome, report.longrepr = "failed", f"{why}\nThis was not expected here (--expected-skips)"
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Have Ctrl-C heard by the programs that tests start: a shell in the background has them ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: each stays in one process, where its tests share what was trained."""
    longest = ("test_slurm", "test_grid", "test_audit")
    items.sort(key=lambda item: longest.index(item.path.stem) if item.path.stem in longest else len(longest))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real small inputs made by others; the test is skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"real inputs are not here: {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def threads_are_kept() -> Iterator[None]:
    """Nothing may change how many threads torch has: what runs later in the process would have other numbers."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch:
        assert torch.get_num_threads() == before


@pytest.fixture
def native() -> None:
    """The compiled routines; the test is skipped where they cannot be had."""
    from lightning_modules.networks.native_library import NEEDED, library
    from lightning_modules.processor import cpu_flags

    if not cpu_flags() >= NEEDED:
        pytest.skip("this processor has no products in bfloat16 by AVX-512")
    if library() is None:
        pytest.skip("no C++ compiler is here, or torch has another OpenMP than GNU's")


@pytest.fixture(params=[1, 2, 3])
def n_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Number of threads that torch and the compiled routines have."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def pdfs_are_written_where_they_are_looked_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """They take a third of the smallest run's time, and are no other picture than the PNG beside them."""
    with pytest.MonkeyPatch.context() as patched:
        if not request.module.__name__.rpartition(".")[2].startswith(("test_figure", "test_capacity", "test_mnist")):
            patched.setattr("experiments.figures.style._write_pdf", lambda fig, path: None)
        yield

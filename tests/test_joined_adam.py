"""Adam on joined parameters."""

import pytest
import torch
from torch import nn

from lightning_modules.optimization.joined_adam import LARGE, JoinedAdam


@pytest.fixture(autouse=True, params=[LARGE, 100])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """All parameters are small, or the first matrix of the network is large."""
    monkeypatch.setattr("lightning_modules.optimization.joined_adam.LARGE", request.param)
    n_elements: int = request.param
    return n_elements


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 33), nn.ReLU(), nn.Linear(33, 3))


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range = range(5)) -> None:
    for step in steps:
        optimizer.zero_grad()
        model(torch.randn(4, 7, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()


def test_joined_parameters_take_the_steps_of_adam() -> None:
    # The vector's length decides which entries a processor takes together: the last bit may differ.
    for weight_decay in (0.0, 0.01):
        apart, joined = network(), network()
        descend(apart, torch.optim.Adam(apart.parameters(), lr=1e-2, weight_decay=weight_decay, fused=True))
        descend(joined, JoinedAdam(joined.parameters(), lr=1e-2, weight_decay=weight_decay))
        for expected, found in zip(apart.parameters(), joined.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_joining_changes_neither_values_nor_names() -> None:
    model, untouched = network(), network().state_dict()
    JoinedAdam(model.parameters(), lr=1e-2)
    assert list(model.state_dict()) == list(untouched)
    assert all(torch.equal(value, untouched[name]) for name, value in model.state_dict().items())


def test_weights_and_optimizer_continue_from_their_states() -> None:
    whole, interrupted, continued = network(), network(), network()
    descend(whole, JoinedAdam(whole.parameters(), lr=1e-2), range(8))
    before = JoinedAdam(interrupted.parameters(), lr=1e-2)
    descend(interrupted, before, range(5))
    after = JoinedAdam(continued.parameters(), lr=1e-2)
    continued.load_state_dict(interrupted.state_dict())
    after.load_state_dict(before.state_dict())
    assert after.n_steps == before.n_steps == 5
    descend(continued, after, range(5, 8))
    for expected, found in zip(whole.parameters(), continued.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_a_large_matrix_stays_by_itself(large: int) -> None:
    model = network()
    optimizer = JoinedAdam(model.parameters(), lr=1e-2)
    n_large = sum(p.numel() for p in model.parameters() if p.numel() >= large)
    assert len(optimizer.vector) == sum(p.numel() for p in model.parameters()) - n_large
    optimizer.zero_grad()
    assert (model[0].weight.grad is None) == (n_large > 0)


def test_gradients_that_were_let_go_are_found_again() -> None:
    kept, cleared = network(), network()
    descend(kept, JoinedAdam(kept.parameters(), lr=1e-2))
    optimizer = JoinedAdam(cleared.parameters(), lr=1e-2)
    cleared.zero_grad(set_to_none=True)
    descend(cleared, optimizer)
    assert torch.equal(kept[0].weight, cleared[0].weight)


def test_moments_that_die_away_end_at_nothing_and_change_no_weight() -> None:
    smallest_normal = torch.finfo(torch.float32).tiny
    dead, model = network(), network()
    plain = torch.optim.Adam(dead.parameters(), lr=1e-2, fused=True)
    joined = JoinedAdam(model.parameters(), lr=1e-2)
    steps = range(1500)
    for net, optimizer in ((dead, plain), (model, joined)):
        for step in steps:
            optimizer.zero_grad()
            x = torch.randn(4, 7, generator=torch.Generator().manual_seed(step))
            (net(x).square().mean() * (step < 5)).backward()  # then the gradient is zero for good
            optimizer.step()

    def n_denormal(optimizer: torch.optim.Optimizer) -> int:
        moments = [state["exp_avg"] for state in optimizer.state.values()]
        return sum(int(((m != 0) & (m.abs() < smallest_normal)).sum()) for m in moments)

    assert n_denormal(plain) > 0
    assert n_denormal(joined) == 0
    for expected, found in zip(dead.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)

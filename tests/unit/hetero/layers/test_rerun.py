"""What is made again is what was there, as late, as often and for as long as it is needed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hetero.layers.live_bytes import LiveBytes
from hetero.layers.rerun import Operator, Remaker, Rerun


class Counted:
    """An operator that keeps four values of its input's size, and says how often it ran."""

    runs = 0

    def __call__(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return torch.sigmoid(torch.tanh(torch.exp(x)) * weight).square() @ weight


def _leaves() -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(32, 32, generator=made) / 4 for _ in range(2))
    return x.requires_grad_(), weight.requires_grad_()


def _gradients(run: Operator, times: int = 1) -> list[torch.Tensor]:
    x, weight = _leaves()
    loss = run(x * 1, weight).sum()  # what a stretch is given has a graph of its own
    return [one for _ in range(times) for one in torch.autograd.grad(loss, (x, weight), retain_graph=times > 1)]


def test_gradients_have_the_same_bits_and_it_runs_once_more() -> None:
    counted = Counted()
    again = _gradients(lambda *inputs: Rerun(counted, inputs).run(*inputs))
    assert counted.runs == 2
    assert all(torch.equal(one, other) for one, other in zip(again, _gradients(Counted()), strict=True))


def test_a_graph_that_is_walked_twice_makes_them_twice() -> None:
    counted = Counted()
    found = _gradients(lambda *inputs: Rerun(counted, inputs).run(*inputs), times=2)
    assert counted.runs == 3
    assert all(torch.equal(one, other) for one, other in zip(found[:2], found[2:], strict=True))


def test_only_inputs_are_kept_and_all_is_let_go_of() -> None:
    x, weight = _leaves()
    with LiveBytes() as live:
        result = Rerun(Counted(), (x, weight)).run(x, weight)
        assert live.now == result.numel() * 4
        result.sum().backward()
        del result
    assert live.now == 2 * x.numel() * 4, "the gradients"


@pytest.mark.parametrize("other", [lambda x: x + 0, lambda x: torch.exp(x[:2])])
def test_a_run_that_does_not_keep_what_the_first_kept_is_refused(other: Operator) -> None:
    runs = iter((torch.exp, other))
    x = torch.ones(3, requires_grad=True)
    result = Rerun(lambda x: next(runs)(x), (x,)).run(x)
    with pytest.raises(RuntimeError, match="1 values were kept in a forward, and others"):
        result.sum().backward()


def test_readers_of_a_result_keep_nothing_of_it_and_share_the_second_run() -> None:
    remaker, counted = Remaker(), Counted()
    operator = remaker.remade(counted)

    def unit(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        with remaker.reading():
            y = operator(x, weight)
            return F.linear(y[None], weight) * F.linear(y.t(), weight)  # by views of it

    def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y = Counted()(x, weight)
        return F.linear(y[None], weight) * F.linear(y.t(), weight)

    assert all(torch.equal(one, other) for one, other in zip(_gradients(unit), _gradients(plain), strict=True))
    assert counted.runs == 2
    x, weight = _leaves()
    with LiveBytes() as live:
        result = unit(x, weight)
        assert live.now == 3 * result.numel() * 4, "itself, and the two products that it was made of"
        result.sum().backward()
        del result
    assert live.now == 2 * x.numel() * 4


def test_without_gradients_an_operator_is_itself() -> None:
    remaker, counted = Remaker(), Counted()
    with torch.no_grad(), remaker.reading():
        found = remaker.remade(counted)(*_leaves())
    assert torch.equal(found, Counted()(*_leaves()))

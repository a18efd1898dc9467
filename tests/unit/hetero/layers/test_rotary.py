"""Rotary angles."""

from __future__ import annotations

import math

import torch

from hetero.layers.frequencies import Rotary
from hetero.layers.rotary import angles_at, angles_of, plain_angles

CPU = torch.device("cpu")


def test_angle_is_position_times_falling_frequency() -> None:
    cos_TK, sin_TK = plain_angles(Rotary.plain(100.0, 4), 6, CPU, torch.float64)
    for position in range(6):
        for k, frequency in enumerate((1.0, 0.1, 1.0, 0.1)):
            assert math.isclose(cos_TK[position, k], math.cos(position * frequency), abs_tol=1e-12)
            assert math.isclose(sin_TK[position, k], math.sin(position * frequency), abs_tol=1e-12)


def test_made_once_for_each_length_and_type() -> None:
    tables = plain_angles(Rotary.plain(1e4, 8), 16, CPU, torch.float32)
    assert plain_angles(Rotary.plain(1e4, 8), 16, CPU, torch.float32)[0] is tables[0]
    assert plain_angles(Rotary.plain(1e4, 8), 16, CPU, torch.bfloat16)[0].dtype is torch.bfloat16
    assert plain_angles(Rotary.plain(1e4, 8), 17, CPU, torch.float32)[0].shape == (17, 8)


def test_positions_pick_rows_of_the_plain_table() -> None:
    positions_BT = torch.tensor([[5, 0, 5], [1, 2, 3]])
    plain = plain_angles(Rotary.plain(1e4, 8), 6, CPU, torch.float32)
    for picked_B1TK, positions_T in zip(torch.stack(angles_of(plain, positions_BT), dim=-1), positions_BT, strict=True):
        there = torch.stack(angles_at(positions_T, Rotary.plain(1e4, 8), 6, CPU, torch.float32), dim=-1)
        assert torch.equal(picked_B1TK, there[None])


def test_a_table_first_made_for_evaluation_serves_training() -> None:
    with torch.inference_mode():
        cos_TK, _ = plain_angles(Rotary.plain(123.0, 8), 16, CPU, torch.float32)
    x = torch.ones(16, 8, requires_grad=True)
    (x * cos_TK).sum().backward()
    assert torch.equal(x.grad, cos_TK)

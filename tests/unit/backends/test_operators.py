"""The plain operators against their definitions, computed another way."""

from __future__ import annotations

import pytest
import torch

from backends.operators import Operators

B, T, H, K, D = 2, 7, 4, 8, 16
OPERATORS = Operators()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    x_BTD, weight_D = torch.randn(B, T, D, dtype=torch.float64), torch.randn(D)
    expected = x_BTD / (x_BTD.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight_D
    torch.testing.assert_close(OPERATORS.rms_norm(x_BTD.float(), weight_D, 1e-5), expected.float())


def test_rms_norm_keeps_the_type_and_computes_in_float32() -> None:
    x_BTD = torch.full((1, 1, D), 300.0, dtype=torch.float16)  # its square is beyond float16
    y_BTD = OPERATORS.rms_norm(x_BTD, torch.ones(D, dtype=torch.float16), 1e-5)
    assert y_BTD.dtype == torch.float16
    torch.testing.assert_close(y_BTD, torch.ones_like(y_BTD))


def test_rotary_is_a_rotation_in_the_complex_plane() -> None:
    x_BHTK, angle_TK2 = torch.randn(B, H, T, K), torch.randn(T, K // 2)
    cos_TK, sin_TK = angle_TK2.cos().repeat(1, 2), angle_TK2.sin().repeat(1, 2)
    turned = torch.complex(*x_BHTK.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angle_TK2), angle_TK2)
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    torch.testing.assert_close(OPERATORS.rotary(x_BHTK, cos_TK, sin_TK), expected)


@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [True, False])
def test_a_product_is_added_to_a_sum_of_its_own_type_or_of_float32(narrow: torch.dtype, wide: bool) -> None:
    gradient_NE, x_ND = torch.randn(B * T, H).to(narrow), torch.randn(B * T, D).to(narrow)
    before_ED = torch.randn(H, D).to(torch.float32 if wide else narrow)
    total_ED = before_ED.clone()
    OPERATORS.add_product(total_ED, gradient_NE, x_ND)
    assert total_ED.dtype == before_ED.dtype
    expected_ED = before_ED.double() + torch.einsum("ne,nd->ed", gradient_NE.double(), x_ND.double())
    eps = torch.finfo(narrow).eps
    torch.testing.assert_close(total_ED.double(), expected_ED, rtol=2 * eps, atol=8 * eps)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_is_causal_softmax_over_shared_heads(groups: int) -> None:
    q_BHTK, k_BGTK, v_BGTK = torch.randn(B, H, T, K), torch.randn(B, groups, T, K), torch.randn(B, groups, T, K)
    head_group = [head * groups // H for head in range(H)]
    scores_BHTT = q_BHTK @ k_BGTK[:, head_group].transpose(-1, -2) / K**0.5
    future_TT = torch.ones(T, T, dtype=torch.bool).triu(1)
    expected = scores_BHTT.masked_fill(future_TT, float("-inf")).softmax(-1) @ v_BGTK[:, head_group]
    torch.testing.assert_close(OPERATORS.attention(q_BHTK, k_BGTK, v_BGTK), expected)


def test_swiglu_gates_with_a_sigmoid_weighted_gate() -> None:
    gate, up = torch.randn(B, T, D), torch.randn(B, T, D)
    torch.testing.assert_close(OPERATORS.swiglu(gate, up), gate * torch.sigmoid(gate) * up)

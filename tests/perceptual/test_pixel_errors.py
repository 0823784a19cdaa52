from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pbvs.core.errors import ScoreError
from pbvs.perceptual.pixel_errors import l1, l2


def _images(bands: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 4, bands, 9, 7))
    return a, b, rng.random((4, 1, 9, 7)) > 0.4


@pytest.mark.parametrize("bands", [1, 3])
def test_both_errors_equal_numpy(bands: int) -> None:
    a, b, _ = _images(bands)
    difference = (a - b).reshape(4, -1)
    got1, got2 = l1(torch.tensor(a), torch.tensor(b)), l2(torch.tensor(a), torch.tensor(b))
    np.testing.assert_allclose(got1, np.abs(difference).mean(axis=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(got2, np.sqrt((difference**2).mean(axis=1)), rtol=0, atol=1e-12)


def test_a_mask_counts_only_true_pixels_even_next_to_nan() -> None:
    a, b, mask = _images()
    a[~np.broadcast_to(mask, a.shape)] = np.nan
    got1 = l1(torch.tensor(a), torch.tensor(b), torch.tensor(mask))
    got2 = l2(torch.tensor(a), torch.tensor(b), torch.tensor(mask))
    for i in range(4):
        difference = (a - b)[i][np.broadcast_to(mask[i], a[i].shape)]
        assert float(got1[i]) == pytest.approx(np.abs(difference).mean(), abs=1e-12)
        assert float(got2[i]) == pytest.approx(np.sqrt((difference**2).mean()), abs=1e-12)


@pytest.mark.parametrize("error", [l1, l2])
def test_nothing_to_compare_is_zero_with_zero_gradient(error: Callable[..., torch.Tensor]) -> None:
    a = torch.rand(2, 1, 4, 4, requires_grad=True)
    value = error(a, torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.bool))
    torch.autograd.backward(value.sum())
    assert value.tolist() == [0.0, 0.0]
    assert a.grad is not None and a.grad.abs().max() == 0


def test_l2_of_equal_images_is_exactly_zero_with_a_finite_gradient() -> None:
    a = torch.rand(2, 3, 5, 5, requires_grad=True)
    target = a.detach().clone()
    target[1] += 0.25
    value = l2(a, target)
    torch.autograd.backward(value.sum())
    assert value[0] == 0.0
    assert value[1].item() == pytest.approx(0.25, abs=1e-6)
    assert a.grad is not None and torch.isfinite(a.grad).all()
    assert a.grad[0].abs().max() == 0 and a.grad[1].abs().max() > 0


def test_l2_is_the_mean_of_roots_not_the_root_of_the_mean() -> None:
    a = torch.zeros(2, 1, 4, 4)
    b = torch.stack([torch.full((1, 4, 4), 0.2), torch.full((1, 4, 4), 0.6)])
    assert float(l2(a, b).mean()) == pytest.approx(0.4, abs=1e-7)  # the root of the mean is 0.447


def test_half_types_do_not_lose_small_differences() -> None:
    a = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float16)
    b = a - 2**-11  # its square is below the resolution of float16
    assert float(l2(a, b)) == pytest.approx(2**-11, rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 1, 4, 4), (2, 3, 4, 5), (3, 4, 4)])
def test_shapes_that_differ_are_refused_not_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(ScoreError, match="one shape"):
        l1(torch.zeros(shape), torch.zeros(2, 3, 4, 4))


def test_a_mask_of_other_shape_or_type_is_refused() -> None:
    a = torch.zeros(2, 3, 4, 4)
    for mask in (torch.ones(2, 3, 4, 4, dtype=torch.bool), torch.ones(2, 1, 4, 4)):
        with pytest.raises(ScoreError, match="mask"):
            l2(a, a, mask)

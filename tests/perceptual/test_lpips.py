from __future__ import annotations

import warnings
from pathlib import Path

import lpips
import pytest
import torch

from pbvs.core.errors import ScoreError, UsageError
from pbvs.perceptual.lpips import Net, PerceptualDistance, unit_vectors
from pbvs.perceptual.metric_weights import load_metric_weights
from pbvs.perceptual.official_networks import lpips_backbone


@pytest.fixture(scope="module")
def alex() -> PerceptualDistance:
    return PerceptualDistance("standin", "alex")


@pytest.fixture(scope="module")
def vgg() -> PerceptualDistance:
    return PerceptualDistance("standin", "vgg")


def _pair(bands: int = 3, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(2, bands, side, side, generator=generator) * 2 - 1
    y = (x + 0.3 * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
    x[0, :, : side // 2], y[1, :, :, : side // 2] = 0.25, -1.0  # flat regions
    return x, y


def _reference(net: str) -> lpips.LPIPS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchvision for lpips's `pretrained=`
        return lpips.LPIPS(net=net, version="0.1", verbose=False)


@pytest.mark.parametrize("net", ["alex", "squeeze"])
@pytest.mark.parametrize("bands", [1, 3])
def test_smaller_networks_equal_the_package_on_the_same_weights(
    hub_with_standins: Path, net: Net, bands: int
) -> None:
    x, y = _pair(bands)
    with torch.no_grad():
        expected = _reference(net)(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)).flatten()
        assert expected.min() > 0.01
        torch.testing.assert_close(PerceptualDistance("standin", net)(x, y), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 70, 64), (2, 3, 33, 47), (1, 3, 97, 16)])
def test_strips_of_rows_equal_the_whole(
    vgg: PerceptualDistance, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(7)
    x, y = (torch.rand(shape, generator=generator) * 2 - 1 for _ in range(2))
    with torch.no_grad():
        whole = vgg(x, y)
        for n_values in (1, 64 * 16 * shape[3] * shape[0]):  # two rows at a time; sixteen of the first layer
            monkeypatch.setattr("pbvs.perceptual.lpips._STRIP_VALUES", n_values)
            torch.testing.assert_close(vgg(x, y), whole, rtol=1e-6, atol=0)


def test_vgg_equals_the_packages_own_forward(vgg: PerceptualDistance) -> None:
    # The package would read 550 MB; with the backbone's tensors alone, its forward is the same.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        reference = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    state = load_metric_weights("vgg16", "standin")[0]
    backbone = lpips_backbone("vgg")
    filled = {key: state["features." + key.split(".", 1)[1]] for key in backbone.state_dict()}
    reference.net.load_state_dict(filled, assign=True)
    reference.scaling_layer = lpips.ScalingLayer()
    heads = torch.load(
        Path(lpips.__file__).parent / "weights/v0.1/vgg.pth", map_location="cpu", weights_only=True
    )
    reference.load_state_dict(heads, strict=False, assign=True)
    x, y = _pair()
    with torch.no_grad():
        expected = reference(x, y).flatten()
        assert expected.min() > 0.01
        torch.testing.assert_close(vgg(x, y), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(vgg(x.requires_grad_(), y).detach(), expected, rtol=0, atol=1e-6)


def test_equal_images_are_exactly_zero(vgg: PerceptualDistance) -> None:
    x, _ = _pair(1)
    with torch.no_grad():
        assert vgg(x, x.clone()).tolist() == [0.0, 0.0]


def test_the_gradient_of_a_vector_of_length_zero_is_finite_where_the_packages_is_not() -> None:
    for features in (torch.zeros(1, 8, 2, 2), torch.full((1, 8, 2, 2), 1e-30)):
        theirs, ours = (features.clone().requires_grad_() for _ in range(2))
        torch.autograd.backward((lpips.normalize_tensor(theirs) - 0.5).square().sum())
        torch.autograd.backward((unit_vectors(ours) - 0.5).square().sum())
        assert theirs.grad is not None and not torch.isfinite(theirs.grad).all()
        assert ours.grad is not None and torch.isfinite(ours.grad).all()


def test_unit_vectors_equal_the_packages() -> None:
    features = torch.randn(2, 16, 5, 5, generator=torch.Generator().manual_seed(10)).relu()
    torch.testing.assert_close(unit_vectors(features), lpips.normalize_tensor(features), rtol=0, atol=1e-6)
    assert unit_vectors(torch.zeros(1, 4, 1, 1)).abs().max() == 0


@pytest.mark.parametrize("bands", [1, 3])
def test_gradients_are_finite_on_flat_and_equal_images(alex: PerceptualDistance, bands: int) -> None:
    # The second colour is the one that the scaling maps to 0: all features of stand-ins are 0 there.
    zero = alex.shift[:, :bands].expand(1, bands, 64, 64)
    for flat in (torch.full((1, bands, 64, 64), -1.0), zero):
        half = flat.clone()
        half[:, :, 30:] = 0.5
        for target in (flat, half):
            x = flat.clone().requires_grad_()
            value = alex(x, target)
            torch.autograd.backward(value.sum())
            assert x.grad is not None and torch.isfinite(x.grad).all()
            assert (value.item() == 0.0) == (target is flat)


def test_gradients_are_those_of_float64(vgg: PerceptualDistance) -> None:
    x, y = _pair(side=32)
    # Flat parts tie in max pooling, where rounding chooses one of several gradients: there are none here.
    noise = torch.Generator().manual_seed(2)
    x, y = ((0.7 * image + 0.05 * torch.randn(image.shape, generator=noise)).clamp(-1, 1) for image in (x, y))
    a = x.clone().requires_grad_()
    torch.autograd.backward(vgg(a, y).sum())
    whole = PerceptualDistance("standin", "vgg").double()
    b = x.double().requires_grad_()
    torch.autograd.backward(whole(b, y.double()).sum())
    assert a.grad is not None and b.grad is not None
    assert float((a.grad - b.grad).norm() / b.grad.norm()) < 1e-3


def test_only_the_images_get_gradients_and_training_mode_changes_nothing(alex: PerceptualDistance) -> None:
    assert not any(p.requires_grad for p in alex.parameters())
    assert not alex.train().training and not any(m.training for m in alex.modules())


def test_values_outside_the_range_raise_unless_switched_off(alex: PerceptualDistance) -> None:
    x, y = _pair()
    float255 = (x + 1) * 127.5
    with pytest.raises(ScoreError, match=r"\[-1,1\]"):
        alex(float255, y)
    with pytest.raises(ScoreError, match=r"\[-1,1\]"):
        alex(x, torch.full_like(y, torch.nan))
    alex(x * 1.0005, y)  # rounding is tolerated
    unchecked = PerceptualDistance("standin", "alex", check_range=False)
    assert torch.isfinite(unchecked(float255, y)).all()


def test_shapes_and_nets_that_do_not_exist_are_refused(alex: PerceptualDistance) -> None:
    x, y = _pair()
    for bad in (x[:1], x[:, :2], x[:, :, :32], x[0]):
        with pytest.raises(ScoreError, match="LPIPS compares"):
            alex(bad, y)
    with pytest.raises(UsageError, match="vgg"):
        PerceptualDistance("standin", "vgg16")  # type: ignore[arg-type]

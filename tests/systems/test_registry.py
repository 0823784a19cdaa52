"""Systems by name, and the paths of 0.1.0."""

import plain_official as plain
import pytest
import torch

from pbvs import systems
from pbvs.core.errors import CheckpointError, UsageError
from pbvs.systems.registry import SYSTEMS, system_named

GLOBAL = {"netG": "global", "input_nc": 1, "output_nc": 3, "ngf": 4, "n_downsample_global": 1,
          "n_blocks_global": 1, "norm": "instance"}  # fmt: skip


def test_an_official_network_by_the_name_of_its_system():
    state = plain.drawn_state(plain.generator_shapes(GLOBAL), seed=1)
    network = systems.from_official("pix2pixhd", {}, state)
    x = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(network(x), plain.generator(GLOBAL, state, x), rtol=0, atol=1e-6)
    with pytest.raises(CheckpointError, match="not the weights of a pix2pixHD"):
        systems.from_official("pix2pixhd", {}, {"a": torch.zeros(1)})
    with pytest.raises(UsageError, match="did you mean 'pix2pixhd'"):
        systems.from_official("pix2pix", {}, state)


def test_the_paths_of_0_1_0_still_work_and_say_where_to_go():
    import pbvs.models

    state = plain.drawn_state(plain.generator_shapes(GLOBAL), seed=1)
    with pytest.warns(DeprecationWarning, match=r"pbvs\.systems\.pix2pixhd\.official"):
        old = pbvs.models.from_official
    assert old({}, state).bands_out == 3
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pbvs.models.nothing  # noqa: B018


def test_every_system_says_what_it_is():
    for name, record in SYSTEMS.items():
        assert system_named(name) is record
        assert record.version >= 1
        assert {"source", "target"} <= set(record.views)
        assert record.load().translators

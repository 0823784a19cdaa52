"""What a training starts from: nothing, another task's trained node, or files of the published code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pbvs.core.files import write_json
from pbvs.graph.trained import InitFrom
from pbvs.pipeline.runs import Runs
from pbvs.systems.pix2pixhd.adapt import adapt_discriminator, adapt_generator, generator_bands
from pbvs.systems.pix2pixhd.network import Discriminator, Generator, count_weights
from pbvs.systems.pix2pixhd.official import read_official
from pbvs.systems.pix2pixhd.system import Pix2PixHD

States = Mapping[str, Mapping[str, Tensor]]


def load_pretrained(
    model: Pix2PixHD,
    first: InitFrom | None,
    runs: Runs,
    node: str,
    bands: tuple[int, int],
    record: Path | None,
) -> str:
    """Lays trained weights under a fresh model, where the task file names some.

    Args:
        first: where they come from; None leaves the model as it is.
        runs: where the nodes of other tasks lie.
        node: the one that is trained; another task's is called the same unless `first` says otherwise.
        bands: of the model's source and target.
        record: a JSON file to write, with what became of each tensor; None: no record.

    Returns:
        A line for people.

    Raises:
        CheckpointError: weights are missing or torn, or differ in more than bands, enhancers and scales.
    """
    generator, discriminator = model.networks["G"], model.networks.get("D")
    assert isinstance(generator, Generator)
    if first is None:
        return f"from fresh weights ({count_weights(generator) / 1e6:.1f} M in the generator)"
    source, states = _states(first, runs, node)
    adapted = {"generator": adapt_generator(generator, states["G"], first.bands)}
    if isinstance(discriminator, Discriminator) and states["D"]:
        source_bands = generator_bands(states["G"])[0], bands[0]
        adapted["discriminator"] = adapt_discriminator(discriminator, states["D"], *source_bands, first.bands)
    if record is not None:
        became = {name: adaptation.as_dict() for name, adaptation in adapted.items()}
        write_json(record, {"from": source, **became})
    words = [f"{name} {adaptation.summary()}" for name, adaptation in adapted.items()]
    return f"from {source}: {'; '.join(words)}"


def _states(first: InitFrom, runs: Runs, node: str) -> tuple[str, States]:
    """What the weights are called, and the state dicts of `G` and `D`; that of `D` is empty without one."""
    if first.task is not None:
        name = f"{first.task}.{first.node}" if first.node else first.task
        return name, {key: runs.load(first.task, first.node or node, key)[1] for key in ("G", "D")}
    assert first.official is not None
    judge = first.official.with_name(first.official.name.replace("_net_G", "_net_D"))
    has_judge = judge != first.official and judge.is_file()
    judged = read_official(judge) if has_judge else {}
    return first.official.name, {"G": read_official(first.official), "D": judged}

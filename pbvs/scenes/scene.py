"""Synthetic scenes: one piece of ground from which every modality is rendered.

A scene has the character of one of the challenge's four cities: `Bingham` hills, mine benches and haul roads;
`Centerfield` fields, pivots and farms; `Manhattan` dense blocks on a grid of streets; `UC_Davis` a campus,
houses and trees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbvs.core.errors import UsageError, did_you_mean
from pbvs.scenes.brushes import Canvas, Layer, noise
from pbvs.scenes.country import bingham, centerfield
from pbvs.scenes.town import manhattan, uc_davis


@dataclass(frozen=True)
class Scene:
    """The ground without light, weather or sensor.

    Attributes:
        px_per_m: pixels per metre.
        material: `H,W` uint8, values of `Material`.
        albedo: `H,W,3` float32 in [0,1], red, green, blue.
        terrain: `H,W` float32, metres.
        height: `H,W` float32, metres above the terrain.
        vegetation, wetness, roughness: `H,W` float32 in [0,1].
    """

    px_per_m: float
    material: NDArray[np.uint8]
    albedo: Layer
    terrain: Layer
    height: Layer
    vegetation: Layer
    wetness: Layer
    roughness: Layer


def make_scene(
    rng: np.random.Generator,
    character: str,
    size_m: tuple[float, float],
    px_per_m: float,
    relief: float = 1.0,
) -> Scene:
    """Paints a scene; the same generator state, character and sizes give the same scene.

    Args:
        rng: generator of every random choice.
        character: a key of `CHARACTERS`.
        size_m: height and width of the ground.
        px_per_m: pixels per metre.
        relief: factor on terrain and heights; 0 is level ground, without layover.

    Raises:
        UsageError: an unknown character.
    """
    if character not in CHARACTERS:
        raise UsageError(
            f"unknown scene character {character!r}", next_step=did_you_mean(character, list(CHARACTERS))
        )
    canvas = Canvas(rng, size_m, px_per_m)
    CHARACTERS[character](canvas)
    grain = noise(rng, canvas.shape, 1.5 * px_per_m, 2)
    return Scene(
        px_per_m,
        canvas.material,
        np.clip(canvas.albedo * (1.0 + 0.025 * grain[:, :, None]), 0.02, 1.0),
        canvas.terrain * np.float32(relief),
        np.maximum(canvas.height, 0.0) * np.float32(relief),
        np.clip(canvas.vegetation * (1.0 + 0.12 * grain + 0.1 * canvas.mid), 0.0, 1.0),
        np.clip(canvas.wetness, 0.0, 1.0),
        np.clip(canvas.roughness + 0.06 * grain + 0.05 * canvas.mid, 0.0, 1.0),
    )


CHARACTERS: dict[str, Callable[[Canvas], None]] = {
    "Bingham": bingham,
    "Centerfield": centerfield,
    "Manhattan": manhattan,
    "UC_Davis": uc_davis,
}

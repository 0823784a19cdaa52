"""Crops of 256 from prepared 1024 x 1024 images, beside decoding the whole PNG for each.

    python benchmarks/crops.py FOLDER [--data PREPARED]

Both sides give the same samples (source, target and mask as tensors) from the same pixels in one run, turn by
turn, with files in the system's cache. FOLDER is for scratch; without PREPARED, scenes are made and prepared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pbvs.core.pixels import write_png
from pbvs.dataset.index import PreparedData
from pbvs.dataset.pair_dataset import PairDataset
from pbvs.dataset.pairs import PairTable
from pbvs.prepare.prepare import prepare
from pbvs.prepare.rasters import read_values
from pbvs.scenes.synth import make_archives

SIDE_PX, CROP_PX = 1024, 256
N_ROUNDS, N_SAMPLES = 5, 40
Names = tuple[str, str]


class WholePngs(Dataset):
    """What a script does: both PNGs decoded whole, one crop and one flip of them kept."""

    def __init__(self, pairs: list[tuple[Path, Path]]):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, n: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(n)
        top, left = rng.integers(SIDE_PX - CROP_PX + 1, size=2)
        flipped = bool(rng.integers(2))
        made = {}
        for key, path in zip(("source", "target"), self.pairs[n % len(self.pairs)], strict=True):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            image = image[:, :, None] if image.ndim == 2 else image[:, :, ::-1]
            crop = image[top : top + CROP_PX, left : left + CROP_PX]
            crop = crop[:, ::-1] if flipped else crop
            made[key] = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        made["mask"] = (made["source"] > 0).any(0, keepdim=True) & (made["target"] > 0).any(0, keepdim=True)
        return made


def made_data(folder: Path) -> Path:
    """Made scenes, prepared at 1024 x 1024."""
    make_archives(folder / "archives", locations=4, tiles=2, test_images=1, chip_px=SIDE_PX)
    wanted = {"modalities": ("sar", "rgb", "ir"), "families": ("stack",), "size_px": (SIDE_PX, SIDE_PX)}
    prepare(folder / "archives", folder / "prepared", **wanted)
    return folder / "prepared"


def both_sides(folder: Path, data: PreparedData, names: Names) -> tuple[PairDataset, WholePngs]:
    draws = PairTable(data, source=names[0], target=names[1], heldout_fraction=0.0).train()
    pairs = []
    for pair in (draws.pair_at(n) for n in range(len(draws))):
        paths = tuple(folder / "png" / f"{c.file.replace('/', '_')}.png" for c in (pair.source, pair.target))
        for path, capture in zip(paths, (pair.source, pair.target), strict=True):
            if not path.exists():
                write_png(path, read_values(capture.path))
        pairs.append(paths)
    return PairDataset(draws, size_px=(SIDE_PX, SIDE_PX), crop_px=CROP_PX), WholePngs(pairs)


def rate(dataset: Dataset, first: int, n_workers: int) -> float:
    """Samples a second, in this process or by a DataLoader's."""
    if n_workers == 0:
        started = time.perf_counter()
        for n in range(first, first + N_SAMPLES):
            dataset[n]
        return N_SAMPLES / (time.perf_counter() - started)
    positions = range(first, first + 2 * N_SAMPLES)
    items = iter(DataLoader(dataset, batch_size=4, sampler=positions, num_workers=n_workers))
    next(items)  # the processes have started
    started = time.perf_counter()
    n_batches = sum(1 for _ in items)
    return 4 * n_batches / (time.perf_counter() - started)


def turn_by_turn(sides: tuple[Dataset, ...], n_workers: int) -> list[float]:
    """The median rate of each side over some rounds, after one that is not counted."""
    found = [[rate(side, 1000 * n, n_workers) for side in sides] for n in range(N_ROUNDS + 1)]
    return [statistics.median(rates) for rates in zip(*found[1:], strict=True)]


def measure(folder: Path, prepared: Path | None = None) -> dict[str, tuple[float, float]]:
    """Samples a second of whole PNGs and of prepared data, for pairs of one band with three and with one."""
    folder.mkdir(parents=True, exist_ok=True)
    data = PreparedData.open(prepared or made_data(folder))
    told = {}
    for names in (("sar", "rgb"), ("rgb", "ir")):
        ours, unwrap = both_sides(folder, data, names)
        for n_workers in (0, 2):
            fast, slow = turn_by_turn((ours, unwrap), n_workers)
            what = f"crops of {CROP_PX} of {names[0]} and {names[1]} at {SIDE_PX}, {n_workers} workers"
            told[what] = slow, fast
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    for what, (slow, fast) in measure(asked.folder, asked.data).items():
        print(f"{what}: whole PNG {slow:.0f}/s, prepared {fast:.0f}/s: {fast / slow:.1f} x")


if __name__ == "__main__":
    main()

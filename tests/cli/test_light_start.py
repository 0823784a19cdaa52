"""Commands that need no network start without torch, and without what else they do not need."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pbvs.core.pixels import write_png

NETWORKS = {"torch", "lightning", "torchvision", "torchmetrics", "lpips", "pytorch_fid", "tensorboard"}
TABLES, IMAGES = {"pandas", "scipy"}, {"numpy", "cv2", "rasterio"}

# Runs the command line and reports at exit which modules of the first argument were imported.
PROBE = """
import atexit, sys
unwanted = set(sys.argv[1].split(","))
atexit.register(lambda: sys.stderr.write("imported: " + ",".join(sorted(unwanted & set(sys.modules)))))
sys.argv = ["pbvs", *sys.argv[2:]]
from pbvs.cli.main import main
main()
"""

# The help pages of all commands and their subcommands, one after the other.
ALL_HELP = """
import sys
from importlib import import_module
from pbvs.cli import main
pages = [["--help"]]
for name in main.COMMANDS:
    app = getattr(import_module(f"pbvs.cli.{name}"), "app", None)
    names = [command.name or command.callback.__name__ for command in app.registered_commands] if app else []
    pages += [[name, "--help"], *([name, sub, "--help"] for sub in names)]
for page in pages:
    sys.argv = ["pbvs", *page]
    try:
        main.main()
    except SystemExit as ended:
        assert ended.code == 0, page
    found = sorted(UNWANTED & set(sys.modules))
    assert not found, (page, found)
sys.stderr.write(f"{len(pages)} pages")
"""


def python(code, *args):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def assert_without(unwanted, *args):
    ended = python(PROBE, ",".join(unwanted), *args)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-1] == "imported: ", args
    return ended.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("--help",),
        ("--version",),
        ("tasks", "list"),
        ("tasks", "show", "sar2rgb"),
        ("solutions",),
        ("board",),
    ],
    ids=" ".join,
)
def test_without_any_image(command):
    assert assert_without(NETWORKS | TABLES | IMAGES, *command)


def test_check_of_a_zip_of_pngs(challenge, pbvs):
    ramp = np.arange(64, dtype=np.uint8)[:, None, None]
    for task, bands in {"sar2eo": 1, "sar2rgb": 3, "rgb2ir": 1, "sar2ir": 1}.items():
        write_png(challenge.root / "pred" / task / "0.png", np.broadcast_to(ramp, (64, 64, bands)))
    zip_path, tasks = challenge.root / "small.zip", ("--tasks", challenge.tasks)
    built = pbvs("submit", "build", challenge.root / "pred", "--out", zip_path, "--runtime", 1, *tasks)
    assert built.code == 0, built.err
    out = assert_without(NETWORKS | TABLES | {"rasterio"}, "submit", "check", zip_path, *tasks)
    assert "keeps the platform's rules" in out


def test_scan_of_archives(challenge):
    assert "images in" in assert_without(NETWORKS | {"scipy", "cv2"}, "data", "scan", challenge.data)


def test_every_help_page():
    ended = python(f"UNWANTED = {NETWORKS | TABLES | IMAGES}\n{ALL_HELP}")
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stderr.split()[0]) > 25


def test_the_probe_sees_an_import():
    ended = python(PROBE.replace("main()", "import numpy; main()"), "numpy", "--version")
    assert ended.stderr.endswith("imported: numpy")

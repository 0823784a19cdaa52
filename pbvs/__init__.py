"""pbvs: from the archives of the PBVS aerial image translation challenge to a checked zip.

The folders follow the data: `data` reads and aligns the archives, `models`, `losses` and
`training` make translators of them, `modules` and `tasks` join these into one graph a task,
`score` judges the translated images and `submission` packs them. `cli` is the way in.
"""

__version__ = "0.1.0"

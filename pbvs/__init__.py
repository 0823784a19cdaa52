"""pbvs: from the archives of the PBVS aerial image translation challenge to a checked zip.

The rooms follow the data: `archives`, `prepare` and `dataset` bring it to batches, `systems` and `training`
to trained networks, `graph` and `pipeline` to translated images, `score` and `submission` to the board.
"""

__version__ = "0.1.0"

"""Facts of the challenge that several rooms share."""

TASKS = ("sar2eo", "sar2rgb", "rgb2ir", "sar2ir")
FID_LAYERS = (64, 192, 768, 2048)  # pytorch-fid's blocks of Inception, by their number of features

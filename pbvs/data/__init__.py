"""From the archives as unpacked to aligned pairs of images: scan, prepare, index, draws, crops."""

"""Pix2PixHD with the winning solution's loss."""

"""One HTML page to look at: what was scored, image by image."""

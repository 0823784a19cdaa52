"""The local score: features, Fréchet distance, LPIPS, pixel errors, and the scoring rules."""

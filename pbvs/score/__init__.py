"""The local score: features, Fréchet distance, LPIPS, pixel errors, the rules, and the judges' weights."""

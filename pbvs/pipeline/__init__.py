"""The steps of a run: prepare, train, translate, calibrate, score, submit."""

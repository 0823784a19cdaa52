"""Prepared captures as training sees them: index, splits, pairs, crops, views, batches."""

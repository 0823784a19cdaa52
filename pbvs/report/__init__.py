"""Reports: an HTML page of a scored submission, and a PNG page of one location."""

"""What lies in the downloads: layouts, headers, scan."""

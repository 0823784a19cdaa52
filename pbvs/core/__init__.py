"""What every room stands on: errors, atomic files, pixels, devices, the process group."""

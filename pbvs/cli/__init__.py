"""The command line: thin commands, one file per command or group."""

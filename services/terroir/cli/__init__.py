"""The `terroir` command line: every service call, with progress bars, readable errors and `--json`."""

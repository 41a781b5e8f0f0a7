"""Arguments in, one job called, exit code out: one file per command."""

"""One file a command of the studies."""

"""The built-in runtimes, one file each."""

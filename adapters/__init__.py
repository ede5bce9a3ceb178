"""The edge: everything that knows the outside world."""

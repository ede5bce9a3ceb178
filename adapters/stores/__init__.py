"""The built-in stores: what reaches files that are elsewhere."""

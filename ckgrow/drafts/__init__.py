"""A network while it grows, and the surgery on it: places, blocks, names, fresh tensors."""

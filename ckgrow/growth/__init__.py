"""What widening methods are made of: grown axes, fresh values, noise, and places."""

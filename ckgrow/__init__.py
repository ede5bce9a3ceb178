"""ckgrow grows trained neural networks."""

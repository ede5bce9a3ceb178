"""What the commands say: documents, and what fills them."""

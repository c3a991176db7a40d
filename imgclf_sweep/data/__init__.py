"""Images: declared, read, split, kept as memory-mapped arrays; the test part sealed."""

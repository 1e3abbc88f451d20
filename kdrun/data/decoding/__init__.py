"""Image files to 8-bit pixels of one shape: surveyed, decoded, converted, cached."""

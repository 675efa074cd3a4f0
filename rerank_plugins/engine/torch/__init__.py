"""Models on torch: what all of them share, and the cross-encoder."""

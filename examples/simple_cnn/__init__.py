"""A small CNN on real images; the learning rate is under control."""

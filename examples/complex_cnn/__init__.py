"""A CNN on augmented colour images; ten hyperparameters are under control."""

"""A problem with one parameter and one hyperparameter; shows the two raw calls."""

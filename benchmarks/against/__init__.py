"""What the comparisons of searches with random ones are made of."""

"""What the comparison of ways of sharing weights is made of."""

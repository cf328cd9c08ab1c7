"""Recipes: a space, a way of learning and a strategy, as a paper has them."""

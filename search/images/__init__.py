"""Reading labelled images."""

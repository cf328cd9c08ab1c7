"""How shared weights learn: a file for each way."""

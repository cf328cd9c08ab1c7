"""What tests of precisions share."""

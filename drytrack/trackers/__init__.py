"""One module for each tracker, named after what it drives."""

"""A local page that predicts recordings by trained models, side by side."""

"""Text for terminals, pages and tables."""

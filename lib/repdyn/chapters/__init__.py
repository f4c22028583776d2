"""What one chapter of the book needs, in a folder that is called as the chapter: measurements, figures, recipes."""

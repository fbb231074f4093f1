"""File names -> pixels: folders, tars, zips."""

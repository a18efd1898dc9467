"""In the place of the vendor's plug-in, which is known by its name alone."""

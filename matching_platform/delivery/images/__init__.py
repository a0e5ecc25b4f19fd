"""From a bento to an image in a registry."""

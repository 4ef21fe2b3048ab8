"""OpenDRIVE: built-in towns, their roads, checks of foreign files."""

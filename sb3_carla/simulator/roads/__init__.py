"""Roads: built-in towns, the OpenDRIVE text that describes them, checks of other OpenDRIVE files."""

"""One CARLA session, and the way to a server: found, started, watched, replaced, given back."""

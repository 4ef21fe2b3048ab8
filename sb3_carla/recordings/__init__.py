"""Recorded drives: a folder of pictures with the car's place in its lane, and what another pose would have seen."""

"""What stands beside the roads of a town: made from its lanes and a seed."""

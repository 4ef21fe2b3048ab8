"""Which part of a published TD3 + CNN system broke it, and which part of ours repairs it: variants, runs, report."""

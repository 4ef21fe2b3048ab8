"""The ablation: which part of a published TD3 + CNN system made it diverge, and which part of ours repairs it."""

"""The torch.fx passes by themselves; they know no engine and no mask file."""

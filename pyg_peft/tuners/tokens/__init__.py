"""What methods on token backbones share."""

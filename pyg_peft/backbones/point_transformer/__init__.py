"""Point Transformer, for classification and segmentation."""

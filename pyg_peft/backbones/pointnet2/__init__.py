"""PointNet++, for classification and segmentation."""

"""DGCNN, for classification and segmentation."""

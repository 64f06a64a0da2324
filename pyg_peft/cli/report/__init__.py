"""Reports as one self-contained HTML file each, for one run and for a comparison."""

"""Which pixels of a crop show its face: Saito, Li and Li, "Real-Time Facial Segmentation and
Performance Capture from RGB Input" (ECCV 2016, arXiv 1604.02647)."""

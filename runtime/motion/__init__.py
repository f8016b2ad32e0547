"""Video in motion: class scores are moved along optical flow, so that the network need not see each frame."""

"""The report of a calibration, as a page and as lines for a terminal."""

"""Which range an activation deserves: samples are run, histograms are kept, and a calibrator chooses."""

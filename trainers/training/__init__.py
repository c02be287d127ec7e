"""The parts of a training: the loop, its log and profile, the search for the first NaN."""

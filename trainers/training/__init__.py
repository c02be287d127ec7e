"""The parts of a training that the loop needs: log, resume, profile, search for NaNs."""

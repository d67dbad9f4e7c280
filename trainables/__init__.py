"""Ray Tune trainables; a study file names one as `module:Class`."""

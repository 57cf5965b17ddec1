"""Setup of a project: `pneumo init`, `pneumo doctor` and `pneumo demo`."""

"""Run folders: the files of a run and the types that training, evaluation and export share."""

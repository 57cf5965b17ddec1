"""`pneumo sweep --auto`: a search plan made from the data set, the machine and the time budget."""

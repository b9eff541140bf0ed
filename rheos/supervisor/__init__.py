"""Child processes: started in order, kept alive, stopped in order."""

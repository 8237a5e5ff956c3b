"""Starting the ranks of a run, watching them, and ending them in one line.  Nothing here loads
torch: it stands before it and around it."""

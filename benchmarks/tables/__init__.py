"""The tables of the documents, made from the committed results and the code."""

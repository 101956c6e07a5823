"""Files that appear whole or not at all, and volumes written block by block."""

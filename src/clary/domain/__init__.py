"""What exists and what is legal. Pure: no I/O, no botocore; time and ids are handed in."""

"""What the fuzz test is made of: valid files, damage to them, and a process that reads them."""

"""The report page: the verdict on two files as one HTML file for a browser."""

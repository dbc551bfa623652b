"""Downloads and archives."""

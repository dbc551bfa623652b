"""The systems that the paper compares SchNet with, small and readable, in the same loader, loop and tests."""

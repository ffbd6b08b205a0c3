"""The sections of a page, one idea each. What is not known is said to be so; no section is left out."""

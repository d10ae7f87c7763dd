"""A pipeline as a folder, here or on the Hub: found, loaded, saved, described, adapted."""

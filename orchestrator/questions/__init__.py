"""Questions that can be asked of a study."""

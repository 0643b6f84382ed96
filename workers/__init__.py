"""How one pack trains; knows nothing of other packs and of no cluster."""

"""Studies that are ready to run: `seedbed run demo`."""

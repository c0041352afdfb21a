"""One archive dealt out to several centres."""

"""One file per page: what it says, as plain data. The same data is the page's JSON."""

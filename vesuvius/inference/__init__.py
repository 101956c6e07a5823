"""Block and sliding-window inference; the network comes in as a callable."""

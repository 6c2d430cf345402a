//! Serving: listener, connections, limits, graceful shutdown.

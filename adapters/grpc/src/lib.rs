//! The gRPC edge: services, clients, status.

//! The program around the domain: configuration, command line, and the joining of edges.

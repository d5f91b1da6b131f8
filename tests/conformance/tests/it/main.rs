//! "Exactly once, whatever happens", shown on every kind of server: one table of responses and endings (`rows`), driven over
//! real sockets (`matrix`); gRPC (`grpc`); and scripts of body events (`property`).

mod clients;
mod grpc;
mod matrix;
mod property;
mod rows;
mod servers;

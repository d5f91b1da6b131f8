//! "Exactly once, whatever happens", shown on every kind of server: one table of responses and endings (`rows`), driven over
//! real sockets (`matrix`); gRPC (`grpc`); scripts of body events (`property`); random load whose books must balance (`chaos`), and
//! must not grow (`soak`).

mod chaos;
mod clients;
mod grpc;
mod load;
mod matrix;
mod property;
mod rows;
mod servers;
mod soak;
mod support;

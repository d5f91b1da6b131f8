//! "Exactly once, whatever happens", shown on every kind of server: one table of responses and endings (`rows`), driven over
//! real sockets (`matrix`); gRPC (`grpc`); scripts of body events (`property`); random load whose books must balance (`chaos`), and
//! must not grow (`soak`); the same by the million without sockets, for each way in which a runner can be set (`profiles`); tasks
//! that wait for a commit, in random interleavings beside a model (`holds`: 25 seconds of processor time); clients that leave at each
//! await point of a handler whose work is guarded (`cut`: 3 seconds); processes that end by SIGTERM, beside clients that do not go, and
//! under load (`deploy`).

mod chaos;
mod clients;
mod cut;
mod deploy;
mod grpc;
mod holds;
mod load;
mod matrix;
mod profiles;
mod property;
mod rows;
mod servers;
mod soak;
mod support;

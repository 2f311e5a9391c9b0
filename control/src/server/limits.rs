//! What bounds the server.

use std::time::Duration;

/// Connections on the Unix socket; who comes then waits.
pub const MAX_LOCAL: usize = 64;
/// Connections over TCP, handshakes included; who comes then is sent away.
pub const MAX_REMOTE: usize = 64;
/// Of these from one address.
pub const MAX_PER_ADDRESS: usize = 16;
/// Streams of one connection.
pub const MAX_STREAMS: u32 = 32;
/// Requests in work, all connections together; more wait.
pub const MAX_REQUESTS: usize = 32;
/// Logs that are followed.
pub const MAX_FOLLOWERS: usize = 16;
/// Requests to PID 1 at a time: it takes 16 connections, and others want some.
pub const MAX_ASKED: usize = 8;
/// Headers of a request in bytes.
pub const MAX_HEADERS: u32 = 16 << 10;
/// What a client may send ahead of a stream, and of a connection, in bytes.
pub const STREAM_WINDOW: u32 = 64 << 10;
/// For all streams of a connection.
pub const CONNECTION_WINDOW: u32 = 256 << 10;
/// What is kept of a stream for a client that reads slowly, in bytes.
pub const SEND_BUFFER: usize = 64 << 10;

/// What is read of a body that is too long, and thrown away, in bytes.
pub const DISCARD: usize = 2 << 20;

/// Time for the TLS handshake, and for the first request after it.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for a request's body.
pub const BODY: Duration = Duration::from_secs(20);
/// How long a request waits for its turn.
pub const TURN: Duration = Duration::from_secs(30);
/// Time for PID 1's answer. PID 1 itself gives up after 60 s and says so.
pub const INIT: Duration = Duration::from_secs(65);
/// Time for the update engine's answer: it may have to ask a channel that is slow.
pub const UPDATE: Duration = Duration::from_secs(100);
/// Time for a bundle to arrive.
pub const BUNDLE: Duration = Duration::from_secs(3600);
/// Time for a whole request, until the client has taken the answer; of a log, for the part that is being sent.
pub const REQUEST: Duration = Duration::from_secs(120);
/// How long a connection without requests stays.
pub const IDLE: Duration = Duration::from_secs(60);
/// How often a connection is asked whether it lives, and how long it may take to say so.
pub const PING: Duration = Duration::from_secs(20);
/// How often deadlines are looked at.
pub const LOOK: Duration = Duration::from_millis(500);
/// How long nobody is accepted after the kernel could not give a descriptor.
pub const PAUSE: Duration = Duration::from_millis(200);
/// How long a follower sleeps at most: news of files may be missed where the folder is removed and made again.
pub const FOLLOW: Duration = Duration::from_secs(5);

/// Threads that read files of the log, and the stack of each in bytes.
pub const LOG_THREADS: usize = 4;
/// Stack of a thread in bytes.
pub const LOG_STACK: usize = 256 << 10;

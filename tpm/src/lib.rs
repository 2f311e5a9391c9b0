//! TPM 2.0 commands over a device or a socket.

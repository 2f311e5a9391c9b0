//! Event logs, PE and UKI, Authenticode hashes, EFI variables, PCR prediction; no I/O.
